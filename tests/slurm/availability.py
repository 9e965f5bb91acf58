"""What this machine must have for the tests on Slurm, and what they do where it lacks something."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

_SBIN = "/usr/sbin:/sbin"

SLURM = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "unshare", "nsenter")
ACCOUNTING = ("mariadbd", "mariadb-install-db", "mariadb-admin", "slurmdbd", "sacctmgr", "sacct")
CONTAINERS = ("gcc",)
IMAGE = ("mmdebstrap", "mksquashfs")
CHARLIECLOUD = ("ch-run",)

_HEADER = Path("/usr/include/slurm/spank.h")


def why_no_slurm() -> str | None:
    """Why no Slurm can be started here, None when one can."""
    if os.geteuid() != 0:
        return "the daemons of Slurm need root here"
    return why_not(*SLURM) or _why_no_namespaces()


def why_no_plugin() -> str | None:
    """Why srun cannot get the flags of pyxis here, None when it can."""
    return why_not(*CONTAINERS) or (None if _HEADER.exists() else f"{_HEADER} is missing{_HINT}")


def why_not(*programs: str) -> str | None:
    """Which of these programs are missing, as a sentence; None when all are there."""
    missing = [program for program in programs if not (shutil.which(program) or shutil.which(program, path=_SBIN))]
    return f"{', '.join(missing)} not installed{_HINT}" if missing else None


def need(reason: str | None) -> None:
    """Skip the test, with the reason; in CI, where all must run, fail."""
    if reason:
        give_up(reason)


def give_up(reason: str) -> NoReturn:
    """As :func:`need` with a reason."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _why_no_namespaces() -> str | None:
    probe = subprocess.run(["unshare", "--uts", "--mount", "true"], capture_output=True, text=True, check=False)
    if probe.returncode == 0:
        return None
    return f"nodes need namespaces, as in a privileged container: {probe.stderr.strip()}"


_HINT = " (scripts/system-packages installs it)"
