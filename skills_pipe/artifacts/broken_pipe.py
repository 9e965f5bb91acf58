"""Programs whose reader has gone, as in ``ns status | head``: they end at once, and without a word."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from typing import Final

EXIT_CODE: Final = 141
"""What a shell tells of a program that SIGPIPE has ended; ``head`` and its like expect no other."""


def until_reader_leaves(program: Callable[[], int]) -> int:
    """Run a program and return its exit code, or :data:`EXIT_CODE` where nobody reads its output any more.

    The signal itself stays off: it would end the program for any other pipe too, such as one to its helpers.
    """
    try:
        out = os.dup(sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):  # standard output is closed, or no file at all
        return program()
    try:
        code = program()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _has_no_reader(out):
            raise
        # What is still in the buffer goes nowhere; Python would complain about it when it ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return EXIT_CODE
    except SystemExit:
        # rich ends a program so, after it has sent the rest nowhere.
        if os.path.samestat(os.fstat(out), os.fstat(sys.stdout.fileno())):
            raise
        return EXIT_CODE
    finally:
        os.close(out)


def _has_no_reader(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))
