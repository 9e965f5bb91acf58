"""What every executor does: take over a recorded run, tell the states of its jobs, stop them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.records.states import JobStatus
from skills_pipe.pipeline.records.store import Run


class Watcher(Protocol):
    """Is told of every change while somebody watches a run."""

    def update(self, run: Run, statuses: Mapping[str, JobStatus]) -> None:
        """Show the states of all jobs; called several times a second."""


class Executor(Protocol):
    """Somebody who runs the jobs of a plan."""

    def submit(self, run: Run, plan: Plan, actions: Mapping[str, str]) -> None:
        """Take over the jobs of ``plan``, whose scripts lie in the folder of ``run``.

        Args:
            plan: the part of the run's plan that has to be run.
            actions: stage -> what was decided for it; recorded in ``submission.json``.

        Raises:
            JobFailed: a job ended badly (only executors that wait for the end can tell).
            UserError: the jobs were refused; then none of them runs.
        """

    def statuses(self, run: Run) -> dict[str, JobStatus]:
        """Status of every submitted job, in the order of the plan."""

    def cancel(self, run: Run, stages: Sequence[str] = ()) -> list[str]:
        """Stop what still runs or waits, and return the names of those jobs.

        Args:
            stages: only the jobs of these, and what waits for them; none means the whole run.
        """
