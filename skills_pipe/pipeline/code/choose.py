"""Which code the jobs of a command get: that of the folder one is in, or that of an earlier run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from skills_pipe.errors import PlanError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.code.package import Code, pack
from skills_pipe.pipeline.records.store import store_of

_packed: dict[Path, Code] = {}
"""Folder -> the code that this process has submitted there first: all commands of a Python script run the same."""


@dataclass(frozen=True, kw_only=True)
class CodeChoice:
    """What a user says about the code.

    Attributes:
        reuse: take what this process has submitted before.
        experiment: take the code of the newest run of this experiment, or of ``experiment/run-3``.
        identifies: it is part of what outputs are made of.
    """

    reuse: bool = True
    experiment: str | None = None
    identifies: bool = False


def choose(choice: CodeChoice, cluster: ClusterConfig) -> Code | None:
    """The code for the jobs of a cluster; None where they run the installed package, and nobody asks for its hash.

    Raises:
        PlanError: it cannot be packed.
        StoreError: there is no such experiment.
    """
    packs = cluster.executor is not ExecutorKind.LOCAL
    if choice.experiment and packs:
        return _of_experiment(choice.experiment, cluster)
    if not packs and not choice.identifies:
        return None
    folder = Path.cwd()
    return _packed[folder] if choice.reuse and folder in _packed else pack(folder)


def remember(code: Code) -> None:
    """What is submitted later from the folder one is in runs the same code, unless its user says otherwise."""
    _packed.setdefault(Path.cwd(), code)


def _of_experiment(name: str, cluster: ClusterConfig) -> Code:
    # Imported here: it is for submissions, and most dry runs name no experiment.
    from skills_pipe.pipeline.code.record import read_record

    run = store_of(cluster).find(name)
    record = read_record(run.folder)
    if record is None:
        raise PlanError(f"{run} has no code of its own", where="--reuse_code_exp", fix="name a run on a Slurm cluster")
    return Code(hash=str(record["hash"]))
