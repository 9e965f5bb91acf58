"""What ``--run_after`` refers to: runs that must have ended well, and what they promise to make."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from skills_pipe.artifacts.identity import Identity
from skills_pipe.errors import PlanError, StoreError, UserError
from skills_pipe.pipeline.checks.finding import Finding, Severity
from skills_pipe.pipeline.decisions.fingerprint import covers
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.executors.slurm.commands import Slurm
from skills_pipe.pipeline.executors.slurm.states import state_of
from skills_pipe.pipeline.plan import Stage
from skills_pipe.pipeline.records.states import JobState, stage_state
from skills_pipe.pipeline.records.store import Run, RunStore

_JOB_ID = "jobid:"


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """The runs before a run.

    Attributes:
        runs: the runs that were named.
        job_ids: Slurm jobs that must end well first: those of runs that are not over, and ``jobid:`` references.
        findings: what is wrong with the references.
        unfinished: run folder -> its stages that are still at work, or wait.
    """

    runs: tuple[Run, ...] = ()
    job_ids: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    unfinished: Mapping[str, Collection[str]] = field(default_factory=dict)

    def promise(self, path: str) -> Identity | None:
        """Identity of the stage of a run before that makes ``path`` (a container path), None when none does."""
        return next((run.identity(stage.name) for run, stage in self._makers(path)), None)

    def still_makes(self, path: str, *, whole: bool = False) -> Identity | None:
        """The same of a stage that has not finished: what lies there is older, or half-done.

        Args:
            whole: the stage makes nothing but ``path``.
        """
        for run, stage in self._makers(path):
            if stage.name in self.unfinished.get(run.at, ()) and (not whole or stage.output == path):
                return run.identity(stage.name)
        return None

    def _makers(self, path: str) -> Iterator[tuple[Run, Stage]]:
        for run in self.runs:
            for stage in run.plan.stages:
                if stage.output is not None and covers(stage.output, path):
                    yield run, stage


def resolve(references: Iterable[str], store: RunStore, slurm: Slurm | None) -> Upstream:
    """Look up the runs that ``references`` name: experiments, run folders, ``jobid:123``.

    Args:
        slurm: where the jobs are queued; None for this machine.
    """
    runs: list[Run] = []
    job_ids: list[str] = []
    findings: list[Finding] = []
    unfinished: dict[str, Collection[str]] = {}
    for reference in references:
        try:
            if reference.startswith(_JOB_ID):
                job_ids += _waited_for_job(_job_id(reference, slurm), slurm)
                continue
            run = store.find(reference)
            ids, unfinished[run.at] = _waited_for(run, is_local=slurm is None, flag=store.flag)
            job_ids += ids
            runs.append(run)
        except UserError as error:
            findings.append(
                Finding(severity=Severity.ERROR, what=error.what, where=error.where or "--run_after", fix=error.fix)
            )
    return Upstream(runs=tuple(runs), job_ids=tuple(job_ids), findings=tuple(findings), unfinished=unfinished)


def _job_id(reference: str, slurm: Slurm | None) -> str:
    number = reference.removeprefix(_JOB_ID)
    if slurm is None:
        raise PlanError(f"{reference!r} is a job of Slurm, and this run is local", where="--run_after")
    if not number.isdigit():
        raise PlanError(f"{reference!r} names no job", where="--run_after", fix="write jobid:123")
    return number


def _waited_for_job(job_id: str, slurm: Slurm | None) -> list[str]:
    """The job, if it is not over; none when it ended well.

    Raises:
        PlanError: it failed, or nobody knows it: Slurm would start at once what is to wait for such a job.
    """
    if slurm is None or not slurm.is_there():
        return [job_id]  # a dry run far from the cluster; the submission looks again
    row = slurm.told([job_id]).get(job_id)
    if row is None:
        raise PlanError(
            f"Slurm does not know job {job_id} any more, and would not wait for it",
            where="--run_after",
            fix="leave it out if it has ended well, else correct its number",
        )
    state = state_of(row)
    if state in (JobState.PENDING, JobState.RUNNING):
        return [job_id]
    if state is JobState.SUCCEEDED:
        return []
    raise PlanError(f"job {job_id} did not end well: it is {row.state}", where="--run_after", fix="run it again")


def _waited_for(run: Run, *, is_local: bool, flag: str) -> tuple[list[str], list[str]]:
    """Ids of the jobs that end a run which is not over, and its stages that have not finished; none when it ended well.

    Raises:
        StoreError: it failed, or it runs where its end cannot be waited for.
    """
    statuses = statuses_of(run)
    if run.submission is None:
        raise StoreError(
            f"run {run} is being submitted, or its submission broke off",
            where=str(run.folder),
            fix=f"see `ns status {run.expname}{flag}`, and submit it again if need be",
        )
    states = {stage.name: stage_state(run.plan, stage.name, statuses) for stage in run.plan.stages}
    submitted = {stage: state for stage, state in states.items() if state is not None}
    bad = [stage for stage, state in submitted.items() if state not in _NOT_BAD]
    if bad:
        raise StoreError(
            f"experiment {run.expname!r} did not end well: its stage {bad[0]!r} {_word(submitted[bad[0]])}",
            where=str(run.folder),
            fix=f"`ns logs {run.expname} {bad[0]}{flag}` shows why; `ns resume {run.expname}{flag}` goes on with it",
        )
    unfinished = [stage for stage, state in submitted.items() if state is not JobState.SUCCEEDED]
    if not unfinished:
        return [], []
    record = run.submission
    if is_local or record is None or record.executor != "slurm":
        raise StoreError(
            f"experiment {run.expname!r} still runs" + (f" in {record.owner}" if record else ""),
            where=str(run.folder),
            fix=f"wait until it has ended (`ns status {run.expname}{flag}` shows how far it is)",
        )
    # What only tells of the end of others ends well, however they do.
    work = [job for job in run.plan.jobs if not job.only_tells]
    waited_for = {edge.upstream for job in work for edge in job.edges}
    # Those that have ended did well, and Slurm may have forgotten them.
    ends = [job for job in work if job.name in statuses and not statuses[job.name].state.ended]
    ends = [job for job in ends if job.name not in waited_for]
    if any(job.segment and not job.segment.requeue for job in ends):
        raise PlanError(f"experiment {run.expname!r} ends in a chain without a gate, which cannot be waited for")
    return [record.job_ids[job.name] for job in ends], unfinished


_NOT_BAD = (JobState.SUCCEEDED, JobState.RUNNING, JobState.PENDING)


def _word(state: JobState) -> str:
    words = {JobState.CONTINUED: "is not finished", JobState.FAILED: "failed", JobState.LOST: "is lost"}
    return words.get(state, f"was {state.value}")
