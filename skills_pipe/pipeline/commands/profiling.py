"""Which steps of a training are profiled, and the program that is put before the trainer for it."""

from __future__ import annotations

from enum import Enum
from typing import Any

from skills_pipe.errors import OptionError

_FOLDER = "profile"
"""Below the folder of the logs, as the trainer has it."""


class Profiler(str, Enum):
    """Which program looks at steps."""

    TORCH = "torch"
    """torch's own: a trace of each rank, below the logs."""
    NSYS = "nsys"
    """Nsight Systems, which the container has to have: it is put before the trainer on each rank."""


def read_step_range(value: Any) -> str:
    """Steps from ``"3:5"``.

    Raises:
        OptionError: it is written otherwise, or holds no step.
    """
    first, _, end = str(value).partition(":")
    if not (first.isdecimal() and end.isdecimal() and 1 <= int(first) < int(end)):
        raise OptionError(f"{value!r} is no range of steps", fix="write FIRST:END, such as 3:5 for the steps 3 and 4")
    return str(value)


def profiling_keys(steps: str | None, profiler: Profiler) -> dict[str, str]:
    """What the trainer is told; nothing when no step is profiled."""
    if steps is None:
        return {}
    return {"logger.profile_step_range": steps, "logger.profiler": profiler.value}


def profiled(argv: tuple[str, ...], steps: str | None, profiler: Profiler, log_dir: str) -> tuple[str, ...]:
    """The command, with Nsight Systems before it where that profiles.

    It records from the trainer's mark at the first step to that at the end of the last one. Reports have the names of
    machine and process, which Nsight puts in the place of ``%h`` and ``%p``.
    """
    if steps is None or profiler is not Profiler.NSYS:
        return argv
    first, _, end = steps.partition(":")
    return (
        *("nsys", "profile", "--capture-range=cudaProfilerApi", "--capture-range-end=stop", "--trace=cuda,nvtx,osrt"),
        *("--force-overwrite=true", f"--output={log_dir}/{_FOLDER}/steps_{first}-{int(end) - 1}.%h.%p"),
        *argv,
    )
