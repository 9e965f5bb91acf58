"""What this machine has to run jobs with, found without importing torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Cores and GPUs that this process may use.

    Attributes:
        cores: CPU cores, at least 1.
        gpus: names for ``CUDA_VISIBLE_DEVICES``, empty without GPUs.
    """

    cores: int
    gpus: tuple[str, ...] = ()

    @classmethod
    def here(cls) -> Machine:
        """This machine, within the limits that are set for this process."""
        return cls(cores=_cores(), gpus=_gpus())


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip() not in ("", "-1"))
    if shutil.which("nvidia-smi") is None:
        return ()
    answer = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return tuple(answer.stdout.split()) if answer.returncode == 0 else ()
