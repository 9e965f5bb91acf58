"""The jobs that trained a run one after the other, as every checkpoint remembers them."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from skills_pipe.artifacts.identity import digest
from skills_pipe.artifacts.manifest import Manifest
from skills_pipe.training.checkpoint.changes import Changes

_FACT = "jobs"
_PACKAGE = Path(__file__).parents[2]
_SOURCES = {".py", ".yaml", ".json"}
_LIBRARIES = ("torch", "transformers")


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One job of a run: where, when and with which code it trained.

    Attributes:
        first_step: the number of the first step that it trained.
        started: UTC, ISO 8601, to the second.
        job: id of the Slurm job; None outside of Slurm.
        host: of rank 0.
        ranks: processes that trained together.
        code: hash of the sources of this program, see :func:`code_hash`.
        versions: of Python and of the libraries that compute.
        kernels: what computed attention and the loss; of jobs before they were recorded none.
        changes: what it trained with otherwise than the job before it, from its first step on; see
            :mod:`skills_pipe.training.checkpoint.changes`.
    """

    first_step: int
    started: str
    job: str | None
    host: str
    ranks: int
    code: str
    versions: Mapping[str, str]
    kernels: Mapping[str, str] = field(default_factory=dict)
    changes: Changes = field(default_factory=dict)

    @classmethod
    def now(
        cls, *, first_step: int, ranks: int, kernels: Mapping[str, str] | None = None, changes: Changes | None = None
    ) -> TrainingJob:
        """The job that this process belongs to."""
        return cls(
            first_step=first_step,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            job=os.environ.get("SLURM_JOB_ID"),
            host=socket.gethostname(),
            ranks=ranks,
            code=code_hash(),
            versions=_versions(),
            kernels=dict(kernels or {}),
            changes=dict(changes or {}),
        )


def jobs_of(manifest: Manifest) -> tuple[TrainingJob, ...]:
    """The jobs that had trained what a checkpoint holds; none of one that was written before they were recorded."""
    return tuple(TrainingJob(**value) for value in manifest.facts.get(_FACT, ()))


def other_kernels(before: Sequence[TrainingJob], kernels: Mapping[str, str]) -> list[str]:
    """Sentences about what ``kernels`` compute otherwise than those of the last job of a run."""
    last = before[-1].kernels if before else {}
    return [
        f"{what} is computed by {name} from here on, and was by {last[what]} in the job before"
        for what, name in kernels.items()
        if last.get(what, name) != name
    ]


def job_facts(jobs: Iterable[TrainingJob]) -> dict[str, Any]:
    """What the manifest of a checkpoint says of the jobs."""
    return {_FACT: [asdict(job) for job in jobs]}


@cache
def code_hash() -> str:
    """sha256 over names and contents of the sources of ``skills_pipe``, wherever they lie."""
    files = sorted(path for path in _PACKAGE.rglob("*") if path.suffix in _SOURCES)
    contents = {path.relative_to(_PACKAGE).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return digest(contents)


@cache
def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _LIBRARIES}
