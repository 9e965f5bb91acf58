"""When a chain of training jobs has to stop: its program says so, or two jobs in a row got no further."""

from __future__ import annotations

from pathlib import Path

from skills_pipe.artifacts.names import MANIFEST, parse_step
from skills_pipe.artifacts.verdict import Outcome
from skills_pipe.pipeline.executors.schedule import Never
from skills_pipe.pipeline.plan import Job, Plan
from skills_pipe.pipeline.records.states import JobState, JobStatus
from skills_pipe.pipeline.records.store import Run

STALLS_ALLOWED = 1
"""A crash without a new step is tried again once."""


class ChainWatch:
    """Follows the chains of a run."""

    def __init__(self, plan: Plan, run: Run) -> None:
        self._plan = plan
        self._run = run
        self._step: dict[str, int] = {}
        self._stalls: dict[str, int] = {}
        self._stopped: dict[str, str] = {}

    def started(self, job: Job) -> None:
        """A job begins."""
        if job.segment is not None:
            self._step[job.stage] = self._latest_step(job)

    def ended(self, job: Job, status: JobStatus) -> None:
        """A job ended."""
        if job.segment is None or status.started_at is None:
            return
        verdict = self._run.verdict(job.name)
        if verdict is not None and verdict.outcome is Outcome.FAILED:
            self._stopped[job.stage] = f"{job.name} cannot go on"
        if status.state not in (JobState.FAILED, JobState.CONTINUED):
            return
        moved = self._latest_step(job) > self._step[job.stage]
        self._stalls[job.stage] = 0 if moved else self._stalls.get(job.stage, 0) + 1
        if self._stalls[job.stage] > STALLS_ALLOWED:
            self._stopped.setdefault(job.stage, f"{self._stalls[job.stage]} jobs in a row made no new step")

    def stopped(self, job: Job) -> Never | None:
        """Why a waiting segment will not run, None when it may."""
        reason = self._stopped.get(job.stage) if job.segment is not None else None
        return Never(state=JobState.CANCELLED, reason=reason) if reason else None

    def _latest_step(self, job: Job) -> int:
        """The last step that is safe on disk or in a verdict, -1 before the first."""
        output = self._plan.stage(job.stage).output
        verdicts = [self._run.verdict(segment.name) for segment in self._plan.jobs_of(job.stage)]
        return max(
            latest_checkpoint(Path(output)) if output else -1,
            *(verdict.step if verdict else -1 for verdict in verdicts),
        )


def latest_checkpoint(folder: Path) -> int:
    """The last finished step below ``folder``, -1 when there is none."""
    if not folder.is_dir():
        return -1
    finished = (entry.name for entry in folder.iterdir() if (entry / MANIFEST).is_file())
    return max((step for step in map(parse_step, finished) if step is not None), default=-1)
