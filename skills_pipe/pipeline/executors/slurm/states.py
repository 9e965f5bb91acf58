"""States of the jobs of a run, from what Slurm tells, what the jobs have left behind, and what is on record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from skills_pipe.artifacts.verdict import Outcome
from skills_pipe.pipeline.executors.slurm.commands import Row, Slurm
from skills_pipe.pipeline.plan import EdgeKind
from skills_pipe.pipeline.records.members import failed_member
from skills_pipe.pipeline.records.states import JobState, JobStatus, record_end, record_start, recorded_statuses
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.records.times import Starts, starts_of
from skills_pipe.pipeline.scripts.setting import NOT_BEGUN

_STATES = {
    "PENDING": JobState.PENDING,
    "CONFIGURING": JobState.PENDING,
    "REQUEUED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.PENDING,
    "REQUEUE_FED": JobState.PENDING,
    "RESV_DEL_HOLD": JobState.PENDING,
    "SPECIAL_EXIT": JobState.PENDING,
    "SUSPENDED": JobState.PENDING,
    "RUNNING": JobState.RUNNING,
    "COMPLETING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "STAGE_OUT": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "COMPLETED": JobState.SUCCEEDED,
    "CANCELLED": JobState.CANCELLED,
}
"""Slurm's word -> ours; every other word is a failure."""

_NEVER = "DependencyNeverSatisfied"


def state_of(row: Row) -> JobState:
    """Our word for the state of a job."""
    return _STATES.get(row.state, JobState.FAILED)


def statuses(run: Run, slurm: Slurm) -> dict[str, JobStatus]:
    """States as Slurm tells them now; ends are recorded, for Slurm forgets, unless the run is somebody else's."""
    known = recorded_statuses(run)
    open_jobs = {status.job_id: status for status in known.values() if not status.state.ended and status.job_id}
    if not open_jobs:
        return known
    record = run.submission
    slurm.require_name(record.slurm if record else "")
    told = slurm.told(list(open_jobs))
    if run.is_ours:
        _cancel_what_never_starts(told, slurm)
    events = run.events()
    for job_id, status in open_jobs.items():
        resources = run.plan.job(status.job).resources
        starts = starts_of(status.job, events)
        counted = replace(status, gpus=resources.num_nodes * resources.num_gpus)
        row = told.get(job_id)
        new = _by_verdict(run, _told(counted, row, starts) if row else _left_behind(run, counted, starts))
        new = _not_needed(run, new, known)
        if new.state.ended and new.exit_code is None:
            new = replace(new, exit_code=run.exit_code(status.job))  # squeue does not tell it
        known[status.job] = new = new.told_apart()
        if run.is_ours:
            _record(run, status, new)
    return known


def _record(run: Run, before: JobStatus, now: JobStatus) -> None:
    if now.started_at is not None and now.started_at != before.started_at:
        record_start(run.event_log(), now)
    if now.state.ended and now.state is not JobState.LOST:
        record_end(run.event_log(), now)


def _cancel_what_never_starts(told: Mapping[str, Row], slurm: Slurm) -> None:
    """Where Slurm is not allowed to do so itself (``kill_on_invalid_dep: false``)."""
    never = [job_id for job_id, row in told.items() if row.state == "PENDING" and row.reason == _NEVER]
    if never:
        slurm.cancel(never)


def _told(status: JobStatus, row: Row, starts: Starts) -> JobStatus:
    state = state_of(row)
    if state is JobState.PENDING and row.reason == _NEVER:
        return replace(status, state=JobState.CANCELLED, reason="a job before it did not end as it should")
    reason = row.reason
    if state is JobState.FAILED and row.state != "FAILED":
        reason = row.state.lower().replace("_", " ")
    # Of what is cancelled while it waits, Slurm says that it started in the moment in which it ended.
    waits = state is JobState.PENDING or (state is JobState.CANCELLED and not row.nodes)
    return replace(
        status,
        state=state,
        started_at=None if waits else _seconds(row.start),
        ended_at=_seconds(row.end) if state.ended else None,
        exit_code=row.exit_code if state.ended else None,
        reason=reason,
        nodes=row.nodes,
        deadline=_seconds(row.end) if state is JobState.RUNNING else None,
        # Waiting again, it has no last start.
        earlier_seconds=_all_seconds(starts) if waits else status.earlier_seconds,
        restarts=max(row.restarts, starts.count if state is JobState.PENDING else status.restarts),
    )


def _all_seconds(starts: Starts) -> float:
    last = starts.last_to - starts.last_from if starts.last_from and starts.last_to else 0.0
    return starts.seconds_before + last


def _left_behind(run: Run, status: JobStatus, starts: Starts) -> JobStatus:
    """What is known of a job that Slurm has forgotten: what its script has left."""
    code = run.exit_code(status.job)
    status = replace(status, started_at=starts.last_from, ended_at=run.exit_time(status.job) or starts.last_to)
    if code is None and starts.count == 0:
        return replace(status, state=JobState.CANCELLED, reason="it never started, and Slurm does not know it any more")
    if code is None:
        return replace(status, state=JobState.LOST, reason="Slurm does not know it any more")
    return replace(status, state=JobState.SUCCEEDED if code == 0 else JobState.FAILED, exit_code=code)


def _by_verdict(run: Run, status: JobStatus) -> JobStatus:
    """The exit codes of Slurm, refined by what the job itself has said."""
    job = run.plan.job(status.job)
    if status.state is JobState.FAILED and job.beside:
        return replace(status, reason=failed_member(run, status.job) or status.reason)
    if job.segment is None or not status.state.ended:
        return status
    verdict = run.verdict(status.job)
    outcome = verdict.outcome if verdict else None
    if outcome is Outcome.COMPLETE:
        return replace(status, state=JobState.SUCCEEDED)
    if verdict and outcome is Outcome.CONTINUE and status.state is not JobState.CANCELLED:
        return replace(status, state=JobState.CONTINUED, reason=verdict.reason)
    if verdict and outcome is Outcome.FAILED:
        return replace(status, state=JobState.FAILED, reason=verdict.reason)
    if status.state is JobState.CANCELLED and _earlier_finished(run, status.job):
        return replace(status, state=JobState.NOT_NEEDED, reason="the work was done before")
    if status.state is JobState.CANCELLED or run.exit_code(status.job) == NOT_BEGUN:
        return replace(status, state=JobState.CANCELLED, reason=run.why_stopped(job.stage) or status.reason)
    return status


def _not_needed(run: Run, status: JobStatus, known: Mapping[str, JobStatus]) -> JobStatus:
    """A retry, for which Slurm has no use after one before it ended well."""
    before = [edge.upstream for edge in run.plan.job(status.job).edges if edge.kind is EdgeKind.UNFINISHED]
    done = any(known[name].state is JobState.SUCCEEDED for name in before if name in known)
    if status.state is JobState.CANCELLED and done:
        return replace(status, state=JobState.NOT_NEEDED, reason="the work was done before")
    return status


def _earlier_finished(run: Run, name: str) -> bool:
    chain = [job.name for job in run.plan.jobs_of(run.plan.job(name).stage)]
    verdicts = [run.verdict(job) for job in chain[: chain.index(name)]]
    return any(verdict is not None and verdict.outcome is Outcome.COMPLETE for verdict in verdicts)


def _seconds(text: str) -> float | None:
    return float(text) if text.isdigit() else None
