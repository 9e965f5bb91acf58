"""How a run was handed over: ``submission.json`` in its folder, and ``submitting.json`` while that lasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from skills_pipe.pipeline.records.process import ProcessId


@dataclass(frozen=True, kw_only=True)
class SubmissionRecord:
    """What is known once a plan has been handed to an executor.

    Attributes:
        executor: ``local`` or ``slurm``.
        cluster: name of the cluster configuration.
        owner: the process that submitted it; it also runs a local one.
        submitted_at: Unix time in seconds.
        actions: stage -> ``run``, ``continue``, ``skip``, ...: see ``decide.Action``.
        job_ids: job -> id that the scheduler gave; only jobs that were handed over are here.
        logs: job -> path of its log, ``%j`` already replaced.
        slurm: the name that the Slurm with the jobs gives itself; empty where that was not asked.
    """

    executor: str
    cluster: str
    owner: ProcessId
    submitted_at: float
    actions: Mapping[str, str] = field(default_factory=dict)
    job_ids: Mapping[str, str] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)
    slurm: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SubmissionRecord:
        """Read back what :meth:`to_json` gave."""
        return cls(**{**value, "owner": ProcessId.from_json(value["owner"])})

    def to_json(self) -> dict[str, Any]:
        """Plain value for ``submission.json``."""
        return asdict(self)
