"""One run at one moment: its stages, their jobs, how far they are, what they have used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from skills_pipe.artifacts.progress import Progress
from skills_pipe.pipeline.plan import EdgeKind, Job, Plan, Segment
from skills_pipe.pipeline.records.states import JobState, JobStatus, stage_state
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.reports.ending import ending_words
from skills_pipe.pipeline.reports.waiting import waiting_words

NOT_SUBMITTED = "not submitted"
_NOT_RUN = {"skip": "finished before", "not needed": "not needed"}
"""What was decided for a stage -> its state, when it has no job."""
_NOISE = ("None", "Prolog", "Cleaning")
"""What Slurm may say of a job that runs, and that is no reason for anything."""
_SILENT_SECONDS = 600.0
"""A running job that has reported progress, and then nothing for so long, is worth a word."""


@dataclass(frozen=True, kw_only=True)
class JobReport:
    """One job.

    Attributes:
        segment: its place in a chain, None for other jobs.
        progress: how far it is, or was when it ended; None when it never said so.
        note: why it waits, or ended as it did.
        warnings: what it says that its user should read, as sentences.
    """

    status: JobStatus
    segment: Segment | None = None
    progress: Progress | None = None
    note: str = ""
    warnings: tuple[str, ...] = ()

    def seconds_left(self, now: float) -> float | None:
        """Until its work is done, by its own estimate; None when it does not run or has made none."""
        if self.status.state is not JobState.RUNNING or self.progress is None or self.progress.eta_seconds is None:
            return None
        return max(0.0, self.progress.eta_seconds - (now - self.progress.updated_at))

    def silent_seconds(self, now: float) -> float | None:
        """Since it last said how far it is, when that is suspiciously long ago."""
        if self.status.state is not JobState.RUNNING or self.progress is None:
            return None
        silent = now - self.progress.updated_at
        return silent if silent > _SILENT_SECONDS else None


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """One stage.

    Attributes:
        state: None when none of its jobs was submitted.
        word: the state for people: also ``finished before``, ``not needed``, ``not submitted``.
        gpu_hours: of all its jobs, over all their starts.
        stopped: why its chain was stopped; empty when it was not.
    """

    name: str
    word: str
    state: JobState | None = None
    jobs: tuple[JobReport, ...] = ()
    gpu_hours: float = 0.0
    stopped: str = ""

    @property
    def current(self) -> JobReport | None:
        """The job that tells how far the stage is: the one that runs, else the last that said so."""
        running = [job for job in self.jobs if job.status.state is JobState.RUNNING]
        told = [job for job in self.jobs if job.progress is not None]
        found = running or told
        return found[-1] if found else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of its jobs; what several jobs of a chain say is there once."""
        return tuple(dict.fromkeys(sentence for job in self.jobs for sentence in job.warnings))

    @property
    def is_chain(self) -> bool:
        """Whether it has a chain of jobs, be it of one."""
        return any(job.segment for job in self.jobs)


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """One run.

    Attributes:
        cluster: name of its cluster configuration, None when it was not submitted.
        being_submitted: somebody is handing it over right now.
        now: the moment, Unix time in seconds.
    """

    name: str
    folder: Path
    command: str
    cluster: str | None
    submitted_at: float | None
    now: float
    stages: tuple[StageReport, ...]
    being_submitted: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return not self.being_submitted and all(job.status.state.ended for stage in self.stages for job in stage.jobs)

    @property
    def good(self) -> bool:
        """Whether every stage that was submitted has done its work."""
        return self.submitted_at is not None and all(stage.state in (None, JobState.SUCCEEDED) for stage in self.stages)

    @property
    def gpu_hours(self) -> float:
        """Of all stages."""
        return sum(stage.gpu_hours for stage in self.stages)

    @property
    def with_gpus(self) -> bool:
        """Whether any of its jobs has had GPUs."""
        return any(job.status.gpus for stage in self.stages for job in stage.jobs)

    def stage(self, name: str) -> StageReport | None:
        """The stage of this name."""
        return next((stage for stage in self.stages if stage.name == name), None)


def report_of(run: Run, statuses: Mapping[str, JobStatus], *, now: float) -> RunReport:
    """The report of a run whose jobs have these statuses."""
    record, plan = run.submission, run.plan
    actions = record.actions if record else {}
    stages = []
    for stage in plan.stages:
        jobs = tuple(_job(run, job, statuses) for job in plan.jobs_of(stage.name) if job.name in statuses)
        state = stage_state(plan, stage.name, statuses)
        stages.append(
            StageReport(
                name=stage.name,
                word=state.value if state else _NOT_RUN.get(actions.get(stage.name, ""), NOT_SUBMITTED),
                state=state,
                jobs=jobs,
                gpu_hours=sum(job.status.gpu_hours(now) for job in jobs),
                stopped=_stopped(run, stage.name),
            )
        )
    return RunReport(
        name=str(run),
        folder=run.folder,
        command=plan.command,
        cluster=record.cluster if record else None,
        submitted_at=record.submitted_at if record else None,
        now=now,
        stages=tuple(stages),
        being_submitted=record is None and run.draft is not None,
    )


def _job(run: Run, job: Job, statuses: Mapping[str, JobStatus]) -> JobReport:
    status = statuses[job.name]
    if status.state is JobState.PENDING:
        note = _waits(run.plan, job, statuses)
    elif status.state.ended:
        note = ending_words(status, before_failed=_before_failed(job, statuses))
    else:
        note = waiting_words(status.reason) if status.reason in _NOISE else status.reason
    return JobReport(
        status=status,
        segment=job.segment,
        progress=run.progress(job.name),
        note=note,
        warnings=run.warnings(job.name),
    )


def _before_failed(job: Job, statuses: Mapping[str, JobStatus]) -> bool:
    before = [statuses[edge.upstream].state for edge in job.edges if edge.upstream in statuses]
    return any(state.ended and not state.good for state in before)


def _waits(plan: Plan, job: Job, statuses: Mapping[str, JobStatus]) -> str:
    """What a job waits for: the jobs before it by name, else what Slurm says."""
    reason = statuses[job.name].reason
    waiting = [edge for edge in job.edges if edge.upstream in statuses and not statuses[edge.upstream].state.ended]
    if waiting and reason in ("", "None", "Dependency", "Priority"):
        kinds = {edge.kind for edge in waiting}
        names = ", ".join(edge.upstream for edge in waiting)
        if kinds == {EdgeKind.UNFINISHED}:
            return f"runs only if {names} {'does' if len(waiting) == 1 else 'do'} not finish the work"
        return f"waits for {'one of ' if kinds == {EdgeKind.ANY_SUCCEEDED} and len(waiting) > 1 else ''}{names}"
    if reason == "Dependency" and plan.run_after:
        return f"waits for {', '.join(plan.run_after)}"
    return waiting_words(reason)


def _stopped(run: Run, stage: str) -> str:
    """What the batch scripts have noted when they stopped the chain of a stage."""
    try:
        return (run.folder / "chain" / f"{stage}.stopped").read_text(errors="replace").strip()
    except OSError:
        return ""
