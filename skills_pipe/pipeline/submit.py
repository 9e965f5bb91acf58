"""Plan -> Submission: the only step that does I/O. Finished stages are skipped, half-done ones go on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from skills_pipe.artifacts.atomic import write_text
from skills_pipe.errors import PlanError, UserError
from skills_pipe.pipeline.checks.finding import Finding
from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.cluster.environment import private_environment
from skills_pipe.pipeline.cluster.paths import PathMap
from skills_pipe.pipeline.code.choose import remember
from skills_pipe.pipeline.code.package import asking_for, install
from skills_pipe.pipeline.code.record import write_record
from skills_pipe.pipeline.decisions.decide import Action, OnChange
from skills_pipe.pipeline.decisions.preview import Preview, SubmitFlags, preview
from skills_pipe.pipeline.display.board import LiveBoard
from skills_pipe.pipeline.display.plan import show_decisions, show_moved
from skills_pipe.pipeline.executors.base import Executor, Watcher
from skills_pipe.pipeline.executors.local import LocalExecutor
from skills_pipe.pipeline.executors.machine import Machine
from skills_pipe.pipeline.executors.registry import cancel_run, statuses_of, submitted
from skills_pipe.pipeline.executors.slurm.executor import SlurmExecutor
from skills_pipe.pipeline.plan import Plan, Stage
from skills_pipe.pipeline.records.command_line import write_command_line
from skills_pipe.pipeline.records.owner import Claim, OutputOwner, Wish, claim_outputs
from skills_pipe.pipeline.records.process import ProcessId
from skills_pipe.pipeline.records.states import JobState, JobStatus, stage_state
from skills_pipe.pipeline.records.store import Run, RunStore, store_of
from skills_pipe.pipeline.scripts.notify import WEBHOOK
from skills_pipe.pipeline.scripts.place import locator
from skills_pipe.pipeline.scripts.setting import JOBS
from skills_pipe.pipeline.transport.reach import transport_of

__all__ = ["OnChange", "Preview", "Submission", "SubmitFlags", "preview", "submit"]

_POLL_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A run that was handed to an executor; ``run_after`` of a later command accepts it.

    Attributes:
        run: the records of the run.
        actions: stage -> what was done with it: ``run``, ``continue``, ``skip``, ...
        job_ids: job -> id given by the scheduler.
    """

    run: Run = field(repr=False)
    actions: Mapping[str, str]
    job_ids: Mapping[str, str]

    @property
    def expname(self) -> str:
        """Name of the experiment."""
        return self.run.expname

    @property
    def run_dir(self) -> Path:
        """Folder with the records of the run; of a cluster behind ssh a copy."""
        return self.run.folder

    def states(self) -> dict[str, JobState]:
        """State of every submitted job now."""
        return {name: status.state for name, status in self._statuses().items()}

    def wait(self) -> Submission:
        """Return when every job has ended."""
        while any(not state.ended for state in self.states().values()):
            time.sleep(_POLL_SECONDS)
        return self

    @property
    def succeeded(self) -> bool:
        """Whether every submitted stage has done its work."""
        plan, statuses = self.run.plan, self._statuses()
        states = (stage_state(plan, stage.name, statuses) for stage in plan.stages)
        return all(state in (None, JobState.SUCCEEDED) for state in states)

    def cancel(self) -> list[str]:
        """Stop what still runs or waits; the names of those jobs."""
        return cancel_run(self.run)

    def _statuses(self) -> dict[str, JobStatus]:
        return statuses_of(self.run)


def submit(
    plan: Plan,
    cluster: ClusterConfig,
    *,
    flags: SubmitFlags | None = None,
    seen: Preview | None = None,
    console: Console | None = None,
) -> Submission:
    """Hand the stages that are not finished to the executor of ``cluster``, and say which those are.

    On this machine it returns when all jobs have ended; on Slurm when they are queued.

    Args:
        seen: what :func:`preview` has just told of the same plan and flags.

    Raises:
        PlanError: something stops the submission; all reasons are told, and nothing was started.
        StoreError: another run works on one of the outputs.
        JobFailed: a job that ran here failed.
    """
    flags = flags or SubmitFlags()
    store = store_of(cluster)
    seen, claim = _claimed(seen or preview(plan, cluster, flags), cluster, flags, store)
    run = store.open(seen.run)
    try:
        _hand_over(run, seen, claim, cluster, flags, console)
    except BaseException:
        # Refused: nobody works on the outputs, and what was set aside is not replaced.
        if _was_not_submitted(run):
            with contextlib.suppress(UserError):
                claim.undo()
        raise
    record = run.submission
    actions = {decision.stage: decision.action.value for decision in seen.decisions}
    return Submission(run=run, actions=actions, job_ids=record.job_ids if record else {})


def _claimed(seen: Preview, cluster: ClusterConfig, flags: SubmitFlags, store: RunStore) -> tuple[Preview, Claim]:
    """What is to be done, and the claim to do it."""
    while True:
        if seen.errors:
            raise PlanError("\n".join(_line(finding) for finding in seen.errors))
        claim = _claim(seen, cluster, flags, store)
        if claim is not None:
            return seen, claim
        # Somebody else has just submitted a run of this experiment: what was seen is not true any more.
        seen = preview(seen.plan, cluster, flags)


def _was_not_submitted(run: Run) -> bool:
    """Whether no job of the run was or will be queued; False also when the connection broke before that was known."""
    if run.submission is not None:
        return False
    jobs = run.folder / JOBS
    # Whoever settles a submission that broke off leaves this file empty, and then nothing is queued any more.
    return run.draft is None or (jobs.exists() and jobs.stat().st_size == 0)


def _hand_over(
    run: Run, seen: Preview, claim: Claim, cluster: ClusterConfig, flags: SubmitFlags, console: Console | None
) -> None:
    """Write the records of the run, and let the executor take its jobs."""
    if flags.code and not cluster.is_local:
        install(flags.code, cluster.job_dir, transport_of(cluster), asked=claim.along)
        write_record(flags.code, run.folder)
        remember(flags.code)
    if flags.command:
        write_command_line(flags.command, run.folder)
    if cluster.notify:
        write_text(run.folder / WEBHOOK, cluster.notify.url(), mode=0o600)
    run.write_plan(seen.plan)
    for stage, identity in seen.identities.items():
        run.write_identity(stage, identity)
    for job, text in seen.scripts.items():
        run.write_script(job, text)
    show_decisions(seen.decisions, explain=flags.explain, console=console)
    # Manifests that lie beside their files are not told.
    told = {*claim.records, *(path for stage in seen.plan.stages for path in _set_aside_with(stage, cluster))}
    show_moved([(before, aside) for before, aside in claim.moved if before in told], console=console)
    actions = {decision.stage: decision.action.value for decision in seen.decisions}
    with LiveBoard(console=console) as board:
        _executor(seen, cluster, run, board).submit(run, seen.to_run, actions)
    run.flush()


def _line(finding: Finding) -> str:
    return str(PlanError(finding.what, where=finding.where, fix=finding.fix))


def _claim(seen: Preview, cluster: ClusterConfig, flags: SubmitFlags, store: RunStore) -> Claim | None:
    """Get the folder of the run and all outputs that it makes, and clear the way for those that begin anew.

    In the same round trip the cluster tells whether it has the code.
    """
    locate = locator(cluster, seen.plan)
    owners: dict[str, OutputOwner] = {}
    anew = []
    for decision in seen.decisions:
        output = seen.plan.stage(decision.stage).output
        if not decision.action.runs or output is None:
            continue
        path = str(locate(output))
        owners[path] = OutputOwner(
            run=seen.run.at,
            stage=decision.stage,
            claimed_by=ProcessId.current(),
            claimed_at=time.time(),
            identity=seen.identities[decision.stage],
        )
        if decision.action is Action.RESTART:
            # The output last: as long as it is there, a restart that was interrupted is still one.
            anew += [*_set_aside_with(seen.plan.stage(decision.stage), cluster), path]
    code = asking_for(flags.code, cluster.job_dir) if flags.code and not cluster.is_local else None
    wish = Wish(run=seen.run.at, owners=owners, set_aside=anew, along=code)
    return claim_outputs(store.site, wish, is_live=lambda owner, age: _is_live(owner, age, store), flag=store.flag)


def _set_aside_with(stage: Stage, cluster: ClusterConfig) -> tuple[str, ...]:
    """Where that which is set aside with the output lies on the cluster, as far as a mount shows it."""
    places = map(PathMap.of(cluster).to_cluster, stage.set_aside_with)
    return tuple(place for place in places if place is not None)


def _is_live(owner: OutputOwner, age: float, store: RunStore) -> bool:
    """Whether the run of an owner, on record for ``age`` seconds, still works on the stage."""
    run = store.at(owner.run)
    if submitted(run) is None:
        return owner.claimed_by != ProcessId.current() and owner.may_be_submitting(age)
    return any(status.stage == owner.stage and not status.state.ended for status in statuses_of(run).values())


def _executor(seen: Preview, cluster: ClusterConfig, run: Run, watcher: Watcher) -> Executor:
    secrets = private_environment(cluster)
    if cluster.is_local:
        return LocalExecutor(machine=Machine.here(), secrets=secrets, watcher=watcher)
    if cluster.executor is ExecutorKind.NEMO_RUN:
        from skills_pipe.pipeline.executors.nemo_run.executor import NemoRunExecutor

        after = seen.upstream.job_ids
        return NemoRunExecutor(cluster=cluster, secrets=secrets, after=after, code=seen.code, watcher=watcher)
    return SlurmExecutor(cluster=cluster, secrets=secrets, after=seen.upstream.job_ids, transport=run.transport)
