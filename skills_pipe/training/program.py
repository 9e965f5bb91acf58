"""How a program of the trainer starts and ends."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn


def end(main: Callable[[], int]) -> NoReturn:
    """Run the program of a rank and :func:`leave` with its exit code; after an error with 1, once it is shown."""
    try:
        code = main()
    except Exception:
        traceback.print_exc()
        code = 1
    leave(code)


def leave(code: int) -> NoReturn:
    """End this process with an exit code, after :func:`skills_pipe.training.distributed.join`.

    A rank ends without tearing the interpreter down: threads of gloo that outlive their group would abort it now and
    then ("terminate called without an active exception"), after all the work was done.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 and not _in_a_group():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _in_a_group() -> bool:
    """Whether a process group is left open, as one of a single process is after an error."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()
