"""The section ``nemo_run`` of a cluster configuration: an executor of nemo-run, and keywords for it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from skills_pipe.errors import ClusterConfigError, did_you_mean
from skills_pipe.pipeline.cluster.config import ClusterConfig

_BRACES = re.compile(r"\{(\w+)\}")

_OURS = {
    "additional_parameters": "write further keys of sbatch into the section sbatch",
    "array": "leave it away",
    "container_env": "leave it away: variables are set inside the container",
    "container_image": "name the image in the section containers",
    "container_mounts": "write them into the section mounts",
    "dependencies": "leave it away: the plan has them",
    "dependency_type": "leave it away: the plan has them",
    "env_vars": "write them into the section env_vars of the cluster: nemo-run neither quotes nor hides them",
    "gpus_per_node": "use --num_gpus",
    "heterogeneous": "leave it away",
    "image": "name the image in the section containers",
    "job_details": "leave it away: logs lie where --log_dir says",
    "job_name_prefix": "write it beside the section nemo_run",
    "launcher": "leave it away: the script of a job starts its processes",
    "nodes": "use --num_nodes",
    "ntasks_per_node": "use --num_gpus",
    "num_gpus": "use --num_gpus",
    "num_nodes": "use --num_nodes",
    "packager": "leave it away: jobs use the code that ns runs with",
    "retries": "use --num_training_jobs",
    "setup_lines": "use --installation_command",
    "srun_args": "leave it away: the launch of a job decides them",
    "tunnel": "run ns on a login node of the cluster",
}
"""Keyword of an executor that is filled from the plan -> where its value comes from instead."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """An executor of nemo-run, and the names under which it takes what a plan says.

    Attributes:
        path: module in ``nemo_run.core.execution``, and class.
        image: keyword of the container image; None where there are no containers.
        mounts: keyword of a list of ``source:target[:ro]``; None where storage has another form, which its own
            keywords describe.
        gpus: keyword of GPUs on each node.
        queued: it keeps jobs and their dependencies in a queue, so that nobody has to stay until the end.
        here: its jobs run on this machine.
    """

    path: str
    image: str | None = None
    mounts: str | None = None
    gpus: str | None = None
    queued: bool = False
    here: bool = False


TARGETS: dict[str, Target] = {
    "slurm": Target(
        path="slurm:SlurmExecutor",
        image="container_image",
        mounts="container_mounts",
        gpus="gpus_per_node",
        queued=True,
    ),
    "local": Target(path="local:LocalExecutor", here=True),
    "docker": Target(
        path="docker:DockerExecutor",
        image="container_image",
        mounts="volumes",
        gpus="num_gpus",
        here=True,
    ),
    "skypilot": Target(path="skypilot:SkypilotExecutor", image="container_image", gpus="gpus_per_node"),
    "skypilot_jobs": Target(path="skypilot_jobs:SkypilotJobsExecutor", image="container_image", gpus="gpus_per_node"),
    "lepton": Target(path="lepton:LeptonExecutor", image="container_image", gpus="gpus_per_node"),
    "dgxcloud": Target(path="dgxcloud:DGXCloudExecutor", image="container_image", gpus="gpus_per_node"),
    "kubeflow": Target(path="kubeflow:KubeflowExecutor", image="image", gpus="gpus_per_node"),
}
"""Short name -> executor: those that nemo-run's experiments can start."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the section says.

    Attributes:
        name: short name of the executor.
        python: interpreter that has nemo-run; it may live in an environment of its own.
        options: keywords for the executor; ``{NAME}`` in a text stands for an environment variable, and is filled in
            only in the process that calls nemo-run.
    """

    name: str
    target: Target
    python: str
    options: Mapping[str, object] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, cluster: ClusterConfig) -> Settings:
        """The settings of a cluster whose executor is nemo-run.

        Raises:
            ClusterConfigError: the section is wrong; all of it is told.
        """
        section = dict(cluster.nemo_run)
        word = str(section.pop("executor", None) or section.pop("_target_", None) or "")
        python = str(section.pop("python", None) or sys.executable)
        problems = list(_option_problems(section))
        name = _short_name(word)
        if name is None:
            problems.insert(0, _no_executor(word))
        if problems:
            where = f"nemo_run of cluster {cluster.name!r}"
            raise ClusterConfigError("; ".join(problems), where=where)
        return cls(name=name or "", target=TARGETS[name or ""], python=python, options=section)


def stays_until_the_end(cluster: ClusterConfig) -> bool:
    """Whether submitting to a cluster returns only when its jobs have ended."""
    return cluster.is_local or (bool(cluster.nemo_run) and not Settings.of(cluster).target.queued)


def _short_name(word: str) -> str | None:
    """``docker`` for ``docker``, ``DockerExecutor``, ``nemo_run.DockerExecutor``; None for what is no executor."""
    classes = {target.path.partition(":")[2]: name for name, target in TARGETS.items()}
    return word if word in TARGETS else classes.get(word.rpartition(".")[2])


def _no_executor(word: str) -> str:
    if not word:
        return f"executor is missing: set it to one of {', '.join(TARGETS)}"
    advice = did_you_mean(word, TARGETS)
    return f"executor must be one of {', '.join(TARGETS)}, not {word!r}" + (f", {advice}" if advice else "")


def _option_problems(section: Mapping[str, object]) -> Iterator[str]:
    for key, value in section.items():
        if key in _OURS:
            yield f"{key} is filled from the plan: {_OURS[key]}"
        missing = sorted(name for name in _names_in(value) if name not in os.environ)
        if missing:
            yield f"{key} needs {', '.join(missing)}, which is not set in the environment: export it first"


def _names_in(value: object) -> set[str]:
    """Names of the variables that ``{NAME}`` in texts of ``value`` stands for."""
    if isinstance(value, str):
        return set(_BRACES.findall(value))
    if isinstance(value, Mapping):
        return {name for item in value.values() for name in _names_in(item)}
    if isinstance(value, list | tuple):
        return {name for item in value for name in _names_in(item)}
    return set()
