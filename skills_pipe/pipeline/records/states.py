"""States of jobs, derived from what a run has recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from skills_pipe.artifacts.events import Event, EventLog
from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.records.process import ProcessId, job_mark, marked
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.records.times import Starts, starts_of

CANCEL_EVENT = "cancel"
"""What `ns cancel` notes of a job before it stops it."""


class JobState(str, Enum):
    """Where a job is."""

    PENDING = "pending"
    """Waits for other jobs, or for its turn."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CONTINUED = "continued"
    """A segment that saved before its work was done; the next one goes on."""
    FAILED = "failed"
    CANCELLED = "cancelled"
    """Stopped, or never started: by a person, or because a job before it failed."""
    NOT_NEEDED = "not needed"
    """A segment of a chain whose work an earlier one has finished."""
    LOST = "lost"
    """Nobody knows how it ended: whoever ran it was killed."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self not in (JobState.PENDING, JobState.RUNNING)

    @property
    def good(self) -> bool:
        """Whether the job did what it was for."""
        return self in (JobState.SUCCEEDED, JobState.CONTINUED, JobState.NOT_NEEDED)


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """What is known of a job.

    Attributes:
        job: its name in the plan.
        job_id: the scheduler's id.
        log: path of its log, None before it is known.
        process: what runs it here, for local jobs.
        gpus: how many GPUs it holds, on all its nodes.
        started_at, ended_at: Unix time in seconds.
        reason: why it ended as it did, or what it waits for; empty when there is nothing to say.
        nodes: names of its nodes as the scheduler writes them; empty when it has none, or on this machine.
        deadline: Unix time at which a running job will be killed; of a waiting one, when it may start; None unknown.
        restarts: how often it was requeued.
        earlier_seconds: that it ran before it was requeued, all starts together.
        cancelling: `ns cancel` has stopped it, or is about to.
    """

    job: str
    stage: str
    state: JobState = JobState.PENDING
    job_id: str | None = None
    log: str | None = None
    process: ProcessId | None = None
    gpus: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    reason: str = ""
    nodes: str = ""
    deadline: float | None = None
    restarts: int = 0
    earlier_seconds: float = 0.0
    cancelling: bool = False

    def elapsed(self, now: float) -> float | None:
        """Seconds that it has run, None when it has not started."""
        if self.started_at is None:
            return None
        return max(0.0, (self.ended_at or now) - self.started_at)

    def gpu_hours(self, now: float) -> float:
        """What it has used so far, over all of its starts."""
        return self.gpus * (self.earlier_seconds + (self.elapsed(now) or 0.0)) / 3600

    def told_apart(self) -> JobStatus:
        """How it ended, with a job that was stopped on purpose told from one that failed or gave up by itself."""
        if not self.cancelling or self.state not in (JobState.CANCELLED, JobState.FAILED, JobState.CONTINUED):
            return self
        saved = f"; {self.reason}" if self.state is JobState.CONTINUED and self.reason else ""
        return replace(self, state=JobState.CANCELLED, reason=f"cancelled by `ns cancel`{saved}")


def record_start(log: EventLog, status: JobStatus) -> None:
    """Record that a job runs, and since when: what watches a scheduler may see it late."""
    process = status.process.to_json() if status.process else None
    log.append(
        status.job, "started", process=process, gpus=status.gpus, at=status.started_at, nodes=status.nodes or None
    )


def record_end(log: EventLog, status: JobStatus) -> None:
    """Record how a job ended."""
    details = {"state": status.state.value, "exit_code": status.exit_code, "reason": status.reason}
    log.append(status.job, "ended", **details, at=status.ended_at)


def recorded_statuses(run: Run) -> dict[str, JobStatus]:
    """Status of every submitted job of a run as its events tell it, in the order of the plan."""
    record = run.submission
    if record is None:
        return {}
    statuses = {
        job.name: JobStatus(
            job=job.name, stage=job.stage, job_id=record.job_ids[job.name], log=record.logs.get(job.name)
        )
        for job in run.plan.jobs
        if job.name in record.job_ids
    }
    events = run.events()
    for event in events:
        if event.subject in statuses:
            statuses[event.subject] = _apply(statuses[event.subject], event)
    return {name: _with_starts(status, starts_of(name, events)) for name, status in statuses.items()}


def _with_starts(status: JobStatus, starts: Starts) -> JobStatus:
    if starts.count < 2:
        return status
    return replace(status, restarts=starts.count - 1, earlier_seconds=starts.seconds_before)


def local_statuses(run: Run) -> dict[str, JobStatus]:
    """Status of every job of a local run; one whose runner is gone is told apart by its own process."""
    statuses = recorded_statuses(run)
    record = run.submission
    if record is None or record.owner.is_alive:
        return statuses
    return {name: status if status.state.ended else _orphaned(status, run) for name, status in statuses.items()}


def stage_state(plan: Plan, stage: str, statuses: Mapping[str, JobStatus]) -> JobState | None:
    """State of a stage from the states of its jobs, None when none of them was submitted.

    A chain has done its work when one segment has; other stages when all their jobs have.
    """
    jobs = [job for job in plan.jobs_of(stage) if job.name in statuses]
    states = [statuses[job.name].state for job in jobs]
    if not states:
        return None
    is_chain = plan.is_chain(stage)
    finished = [state is JobState.SUCCEEDED for state in states]
    if any(finished) if is_chain else all(finished):
        return JobState.SUCCEEDED
    worst_first = (JobState.RUNNING, JobState.LOST, JobState.FAILED, JobState.CANCELLED, JobState.PENDING)
    # The next segment is the retry of a failed one: the chain is not lost while one waits.
    order = (JobState.RUNNING, JobState.PENDING, *worst_first) if is_chain else worst_first
    return next((state for state in order if state in states), JobState.CONTINUED)


def _apply(status: JobStatus, event: Event) -> JobStatus:
    details: Mapping[str, Any] = event.details
    if event.kind == CANCEL_EVENT:
        return replace(status, cancelling=True)
    if event.kind == "started":
        return _started(status, details, details.get("at") or event.time)
    if event.kind == "ended":
        return replace(
            status,
            state=JobState(details["state"]),
            ended_at=details.get("at") or event.time,
            exit_code=details.get("exit_code"),
            reason=details.get("reason") or "",
        ).told_apart()
    return status


def _started(status: JobStatus, details: Mapping[str, Any], at: float) -> JobStatus:
    process = ProcessId.from_json(details["process"]) if details.get("process") else None
    status = replace(
        status, process=process, gpus=details.get("gpus", 0), nodes=details.get("nodes") or "", started_at=at
    )
    if status.state.ended and status.ended_at is not None and at <= status.ended_at:
        # Events are in the order of the clocks of their writers, which differ: it had started before it ended.
        return status
    return replace(status, state=JobState.RUNNING, ended_at=None, exit_code=None)


def _orphaned(status: JobStatus, run: Run) -> JobStatus:
    if status.state is JobState.RUNNING and status.process is not None and status.process.is_alive:
        return replace(status, reason="`ns` itself was killed; the job goes on")
    # What a job has started may outlive it, and still writes: ranks of torchrun are in sessions of their own.
    if status.state is JobState.RUNNING and marked(job_mark(run.folder, status.job)):
        return replace(status, reason="`ns` and the job were killed; processes of it go on")
    reason = "`ns` was killed while it ran" if status.state is JobState.RUNNING else "`ns` was killed before it started"
    return replace(status, state=JobState.LOST, reason=reason, ended_at=status.started_at and _last_event(run))


def _last_event(run: Run) -> float | None:
    events = run.events()
    return events[-1].time if events else None
