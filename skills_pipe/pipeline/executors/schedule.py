"""Which job may start: the meaning of a plan's edges, as Slurm would keep them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from skills_pipe.pipeline.plan import EdgeKind, Job, Plan
from skills_pipe.pipeline.records.states import JobState

WAIT = "wait"
READY = "ready"


@dataclass(frozen=True, kw_only=True)
class Never:
    """A job that cannot start any more.

    Attributes:
        state: ``CANCELLED``, or ``NOT_NEEDED`` when an earlier segment has done its work.
        reason: why, for people.
    """

    state: JobState
    reason: str


def outlook(job: Job, states: Mapping[str, JobState]) -> str | Never:
    """:data:`READY`, :data:`WAIT`, or :class:`Never` for a pending job.

    Args:
        states: job -> state; an upstream job that is not in it does not matter (its stage was finished before).
    """
    edges = [edge for edge in job.edges if edge.upstream in states]
    alternatives = [edge.upstream for edge in edges if edge.kind is EdgeKind.ANY_SUCCEEDED]
    answers = [_required(edge.kind, edge.upstream, states) for edge in edges if edge.upstream not in alternatives]
    if alternatives:
        answers.append(_any(alternatives, states))
    impossible = [answer for answer in answers if isinstance(answer, Never)]
    if impossible:
        # "Not needed" is said only when nothing worse is true.
        return min(impossible, key=lambda never: never.state is JobState.NOT_NEEDED)
    return WAIT if WAIT in answers else READY


def reduced(plan: Plan, stages: set[str]) -> Plan:
    """The plan with the jobs of ``stages`` only, and with the edges among them."""
    kept = {job.name for job in plan.jobs if job.stage in stages}
    jobs = tuple(_with_edges(job, kept) for job in plan.jobs if job.name in kept)
    return Plan(
        expname=plan.expname,
        command=plan.command,
        stages=plan.stages,
        jobs=jobs,
        mounts=plan.mounts,
        run_after=plan.run_after,
    )


def _required(kind: EdgeKind, upstream: str, states: Mapping[str, JobState]) -> str | Never:
    state = states[upstream]
    if not state.ended:
        return WAIT
    if kind is EdgeKind.ENDED:
        return READY
    if kind is EdgeKind.SUCCEEDED:
        if state is JobState.SUCCEEDED:
            return READY
        return Never(state=JobState.CANCELLED, reason=f"{upstream} {_how(state)}")
    if state in (JobState.SUCCEEDED, JobState.NOT_NEEDED):
        return Never(state=JobState.NOT_NEEDED, reason="the work was done before")
    if state in (JobState.FAILED, JobState.CONTINUED):
        return READY
    return Never(state=JobState.CANCELLED, reason=f"{upstream} {_how(state)}")


def _any(upstreams: list[str], states: Mapping[str, JobState]) -> str | Never:
    if any(states[name] is JobState.SUCCEEDED for name in upstreams):
        return READY
    if all(states[name].ended for name in upstreams):
        return Never(state=JobState.CANCELLED, reason=f"none of {', '.join(upstreams)} finished the work")
    return WAIT


def _how(state: JobState) -> str:
    return {
        JobState.FAILED: "failed",
        JobState.CANCELLED: "was cancelled",
        JobState.CONTINUED: "did not finish",
        JobState.NOT_NEEDED: "did not run",
        JobState.LOST: "is lost",
    }.get(state, f"is {state.value}")


def _with_edges(job: Job, kept: set[str]) -> Job:
    fields = {name: getattr(job, name) for name in job.__dataclass_fields__}
    return Job(**(fields | {"edges": tuple(edge for edge in job.edges if edge.upstream in kept)}))
