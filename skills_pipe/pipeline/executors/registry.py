"""Which executor a recorded run belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from skills_pipe.errors import StoreError
from skills_pipe.pipeline.executors.base import Executor
from skills_pipe.pipeline.records.states import JobStatus
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.records.submission import SubmissionRecord


def executor_of(run: Run) -> Executor:
    """The executor that can tell the states of a submitted run and stop it."""
    record = submitted(run)
    if record is None and run.draft is not None:
        raise StoreError(f"run {run} is being submitted by {run.draft.owner}", fix="try again in a moment")
    if record is None:
        raise StoreError(f"run {run} was never submitted", where=str(run.folder))
    # Imported here: a plan that is only looked at needs neither.
    if record.executor == "local":
        from skills_pipe.pipeline.executors.local import LocalExecutor
        from skills_pipe.pipeline.executors.machine import Machine

        return LocalExecutor(machine=Machine(cores=1))
    if record.executor == "slurm":
        from skills_pipe.pipeline.executors.slurm.executor import SlurmExecutor

        return SlurmExecutor(transport=run.transport)
    if record.executor == "nemo_run":
        from skills_pipe.pipeline.executors.nemo_run.executor import NemoRunExecutor

        return NemoRunExecutor()
    raise StoreError(f"nothing is known of executor {record.executor!r}", where=str(run.folder / "submission.json"))


def statuses_of(run: Run) -> dict[str, JobStatus]:
    """Status of every submitted job of a run; none when it was never submitted."""
    run.refresh()
    statuses = {} if submitted(run) is None else executor_of(run).statuses(run)
    run.flush()
    return statuses


def cancel_run(run: Run, stages: Sequence[str] = ()) -> list[str]:
    """Stop what still runs or waits of a run, or of some of its stages; the names of those jobs.

    Raises:
        StoreError: somebody else has submitted it, or it cannot be stopped from here.
    """
    run.refresh()
    if not run.is_ours:
        raise StoreError(f"run {run} is not yours to cancel", where=str(run.folder), fix=f"ask {run.folder.owner()}")
    stopped = executor_of(run).cancel(run, stages)
    run.flush()
    return stopped


def submitted(run: Run) -> SubmissionRecord | None:
    """The record of a submission, None when there is none; one that broke off is settled first.

    Raises:
        StoreError: Slurm gives no answer, so that it cannot be settled now.
    """
    record = run.submission
    if record is None and run.draft is not None:
        from skills_pipe.pipeline.executors.slurm.commands import Slurm
        from skills_pipe.pipeline.executors.slurm.submission import is_broken_off, settle

        if is_broken_off(run):
            settle(run, Slurm(run.transport))
        return run.submission
    return record
