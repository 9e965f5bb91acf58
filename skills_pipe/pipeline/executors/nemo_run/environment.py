"""What sbatch gets of the environment of the one who submits, and the jobs with it, when nemo-run calls it.

The same that our own script for submitting leaves: where programs are, and who the user is. ``--export=NIL`` would not
do: an older Slurm takes it for the name of a variable, and adds what the profile of the user sets, tokens and all.
"""

from __future__ import annotations

import os
import posixpath
import shutil

from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.scripts.submission import FEW, SYSTEM_PATH


def for_sbatch(cluster: ClusterConfig) -> dict[str, str]:
    """All variables with which sbatch is called."""
    names = [*FEW]
    if not cluster.account and "account" not in cluster.sbatch:
        names.append("SBATCH_ACCOUNT")
    found = {name: os.environ[name] for name in names if os.environ.get(name)}
    return {"PATH": _path()} | found


def _path() -> str:
    """Folders of programs, Slurm's too; nemo-run calls sbatch by its name, and it must be the one that we would."""
    sbatch = shutil.which("sbatch")
    slurm = shutil.which("srun") or sbatch
    path = f"{SYSTEM_PATH}:{posixpath.dirname(slurm)}" if slurm else SYSTEM_PATH
    if sbatch and shutil.which("sbatch", path=path) != sbatch:
        path = f"{posixpath.dirname(sbatch)}:{path}"
    return path
