"""The setting of a batch script: a job, its plan, the cluster and the run, and paths as the cluster has them."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path

import skills_pipe
from skills_pipe.errors import PlanError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime
from skills_pipe.pipeline.cluster.paths import RUN_DIR, is_below, to_cluster
from skills_pipe.pipeline.plan import Command, Job, Launch, Plan
from skills_pipe.pipeline.records.store import Run

SECRETS = "secrets.env"
"""File in the run folder, readable by its owner only, with variables that must not stand in scripts."""
JOBS = "jobs.tsv"
"""File in the run folder: one line for each job, name and id of Slurm."""
ALL_STOPPED = "chain/all.stopped"
"""File in the run folder that keeps the segments of all its chains from starting."""
NOT_BEGUN = 76
"""Exit code of a segment whose chain was stopped before its program began."""
CODE_INSIDE = f"{RUN_DIR}/code"
"""Folder of the code inside containers."""
_SYMBOL = re.compile("%([%j])")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What every part of a batch script may look at.

    Attributes:
        code: folder of the cluster with the code of the jobs; not needed for paths alone.
    """

    job: Job
    plan: Plan
    cluster: ClusterConfig
    run: Run
    code: str = ""

    @property
    def contained(self) -> bool:
        """Whether commands run in containers."""
        return self.cluster.container_runtime is not ContainerRuntime.NONE

    @property
    def tasks_per_node(self) -> int:
        """Processes of the main command on each node."""
        return tasks_per_node(self.job.command, self.job.resources.num_gpus)

    def on_cluster(self, path: str) -> str:
        """A path of the job as the cluster itself has it: the same without containers, but for the run folder."""
        if is_below(path, RUN_DIR):
            return posixpath.normpath(f"{self.run.at}/{posixpath.relpath(path, RUN_DIR)}")
        return to_cluster(path, self.plan.mounts) if self.contained else path


@dataclass(frozen=True, kw_only=True)
class Component:
    """A command of a job, and what it takes of the job.

    Attributes:
        name: unique in the job; begins the name of its log: ``main``, ``server``, ``sandbox``.
        num_nodes: on how many of the nodes of the job it runs.
        tasks_per_node: how often it starts on each of them.
        num_gpus: GPUs on each node.
        overlap: other components run at the same time, on the same cores.
        main: it speaks for the job: progress, verdict and identity are its own.
        inherits: variables of the batch script that it gets too.
    """

    name: str
    command: Command
    num_nodes: int = 1
    tasks_per_node: int = 1
    num_gpus: int = 0
    overlap: bool = False
    main: bool = False
    inherits: tuple[str, ...] = ()


def tasks_per_node(command: Command, num_gpus: int) -> int:
    """Processes of a command on each of its nodes, which has ``num_gpus`` GPUs for it."""
    counts = {Launch.BATCH: 1, Launch.ONCE: 1, Launch.PER_GPU: max(1, num_gpus), Launch.PER_NODE: command.num_tasks}
    return counts[command.launch]


def log_folder(setting: Setting) -> str:
    """Folder of the logs of a job."""
    return setting.on_cluster(setting.job.log_dir)


def log_patterns(setting: Setting, component: str = "main") -> tuple[str, str]:
    """What Slurm is told of the logs of the batch script and of the step of a component.

    ``%j`` stands for the job id, ``%%`` for one ``%`` in the name of the folder.

    Raises:
        PlanError: the folder has a backslash, with which Slurm puts no id into the names of files.
    """
    folder, name = log_folder(setting).replace("%", "%%"), setting.job.name
    if "\\" in folder:
        raise PlanError(f"{folder} has a backslash, and Slurm puts no logs there", where="--log_dir", fix="rename it")
    return f"{folder}/{name}_%j_sbatch.log", f"{folder}/{component}_{name}_%j_srun.log"


def log_path(pattern: str, job_id: str) -> str:
    """The log that Slurm makes of a pattern."""
    return _SYMBOL.sub(lambda symbol: {"%": "%", "j": job_id}[symbol.group(1)], pattern)


def batch_log(step_log: Path) -> Path:
    """The log of the batch script beside the log of its step: it says why a step never began."""
    return step_log.with_name(step_log.name.removeprefix("main_").removesuffix("_srun.log") + "_sbatch.log")


def code_dir() -> Path:
    """Folder that holds the package, as this machine and the nodes see it."""
    return Path(skills_pipe.__file__).resolve().parents[1]
