"""Failures of the disk and of memory behind what libraries make of them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

_NO_MEMORY = re.compile(
    r"can't allocate memory|out of memory|cannot allocate memory|can't start new thread", re.IGNORECASE
)
_RUST = re.compile(r"\(os error (\d+)\)")


@contextlib.contextmanager
def disk_failures() -> Iterator[None]:
    """Raise the OSError behind a failure, where there is one.

    On a full disk ``torch.save`` raises a RuntimeError about its position in the file, and the tokenizers library an
    Exception with the number of the error in its text.
    """
    try:
        yield
    except Exception as error:
        cause = _behind(error)
        if cause is None or cause is error:
            raise
        raise OSError(cause.errno, cause.strerror) from error


def is_lack_of_memory(error: Exception) -> bool:
    """Whether memory could not be had: torch raises a RuntimeError for that of the host, threads another."""
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


def _behind(error: BaseException) -> OSError | None:
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, OSError):
            return current
        found = _RUST.search(str(current))
        if found:
            return OSError(int(found[1]), os.strerror(int(found[1])))
        current = current.__cause__ or current.__context__
    return None
