"""Who stopped a job: `ns cancel` says so before it does, so that nobody takes it for a failure afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from skills_pipe.pipeline.plan import EdgeKind, Plan
from skills_pipe.pipeline.records.states import CANCEL_EVENT
from skills_pipe.pipeline.records.store import Run

CANCELLED = "cancelled by `ns cancel`"


def record_cancel(run: Run, jobs: Iterable[str]) -> None:
    """Note that these jobs are about to be stopped because somebody asked for it."""
    log = run.event_log()
    for job in jobs:
        log.append(job, CANCEL_EVENT)


def cancel_requested(run: Run, job: str) -> bool:
    """Whether `ns cancel` has stopped the job, or is about to."""
    return any(event.subject == job and event.kind == CANCEL_EVENT for event in run.events())


def stopped_note(run: Run, stage: str) -> Path:
    """The file that keeps the jobs of a stage from starting, and says why."""
    return run.folder / "chain" / f"{stage}.stopped"


def jobs_with(plan: Plan, stages: Iterable[str]) -> set[str]:
    """The jobs of these stages, and all that wait for them: nothing else would ever let those start."""
    found = {job.name for stage in stages for job in plan.jobs_of(stage)}
    for job in plan.jobs:
        if any(edge.upstream in found and edge.kind is not EdgeKind.ENDED for edge in job.edges):
            found.add(job.name)
    return found
