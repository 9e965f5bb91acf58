"""Plan -> Submission: the only step that does I/O. Finished stages are skipped, half-done ones go on."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from skills_pipe.artifacts.names import manifest_path
from skills_pipe.errors import PlanError
from skills_pipe.pipeline import display
from skills_pipe.pipeline.checks.preflight import Finding
from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.cluster.environment import private_environment
from skills_pipe.pipeline.decisions.decide import Action, OnChange
from skills_pipe.pipeline.decisions.preview import Preview, SubmitFlags, preview
from skills_pipe.pipeline.decisions.upstream import Upstream
from skills_pipe.pipeline.executors.base import Executor, Watcher
from skills_pipe.pipeline.executors.local import LocalExecutor
from skills_pipe.pipeline.executors.machine import Machine
from skills_pipe.pipeline.executors.registry import executor_of, statuses_of
from skills_pipe.pipeline.executors.slurm.executor import SlurmExecutor
from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.records.owner import OutputOwner
from skills_pipe.pipeline.records.process import ProcessId
from skills_pipe.pipeline.records.states import JobState, JobStatus, stage_state
from skills_pipe.pipeline.records.store import Run, RunStore
from skills_pipe.pipeline.scripts.place import locator

__all__ = ["OnChange", "Preview", "Submission", "SubmitFlags", "preview", "submit"]

_POLL_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A run that was handed to an executor; ``run_after`` of a later command accepts it.

    Attributes:
        expname: name of the experiment.
        run_dir: folder with the records of the run.
        actions: stage -> what was done with it: ``run``, ``continue``, ``skip``, ...
        job_ids: job -> id given by the scheduler.
    """

    expname: str
    run_dir: Path
    actions: Mapping[str, str]
    job_ids: Mapping[str, str]

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
        run, statuses = Run(self.run_dir), self._statuses()
        states = (stage_state(run.plan, stage.name, statuses) for stage in run.plan.stages)
        return all(state in (None, JobState.SUCCEEDED) for state in states)

    def cancel(self) -> list[str]:
        """Stop what still runs or waits; the names of those jobs."""
        return executor_of(Run(self.run_dir)).cancel(Run(self.run_dir))

    def _statuses(self) -> dict[str, JobStatus]:
        return statuses_of(Run(self.run_dir))


def submit(
    plan: Plan, cluster: ClusterConfig, *, flags: SubmitFlags | None = None, console: Console | None = None
) -> Submission:
    """Hand the stages that are not finished to the executor of ``cluster``, and say which those are.

    On this machine it returns when all jobs have ended; on Slurm when they are queued.

    Raises:
        PlanError: something stops the submission; all reasons are told, and nothing was started.
        StoreError: another run works on one of the outputs.
        JobFailed: a job that ran here failed.
    """
    flags = flags or SubmitFlags()
    seen = preview(plan, cluster, flags)
    if seen.errors:
        raise PlanError("\n".join(_line(finding) for finding in seen.errors))
    run = RunStore(Path(cluster.job_dir)).create(plan.expname)
    if run.folder != seen.run.folder:
        seen = preview(plan, cluster, flags, run=run)
    run.write_plan(plan)
    for stage, identity in seen.identities.items():
        run.write_identity(stage, identity)
    _claim_outputs(seen, cluster)
    for job, text in seen.scripts.items():
        run.write_script(job, text)
    actions = {decision.stage: decision.action.value for decision in seen.decisions}
    display.show_decisions(seen.decisions, explain=flags.explain, console=console)
    with display.LiveBoard(console=console) as board:
        _executor(cluster, seen.upstream, board).submit(run, seen.to_run, actions)
    record = run.submission
    return Submission(
        expname=plan.expname, run_dir=run.folder, actions=actions, job_ids=record.job_ids if record else {}
    )


def _line(finding: Finding) -> str:
    return str(PlanError(finding.what, where=finding.where, fix=finding.fix))


def _claim_outputs(seen: Preview, cluster: ClusterConfig) -> None:
    """Become the one writer of every output that is made, and clear the way for those that begin anew."""
    locate = locator(cluster, seen.plan)
    for decision in seen.decisions:
        output = seen.plan.stage(decision.stage).output
        if not decision.action.runs or output is None:
            continue
        path = locate(output)
        owner = OutputOwner(
            run=str(seen.run.folder),
            stage=decision.stage,
            claimed_by=ProcessId.current(),
            identity=seen.identities[decision.stage],
        )
        owner.claim(path, is_live=_is_live)
        if decision.action is Action.RESTART:
            _set_aside(path)


def _is_live(owner: OutputOwner) -> bool:
    """Whether the run of an owner still works on the stage."""
    run = Run(Path(owner.run))
    if run.submission is None:
        return owner.claimed_by != ProcessId.current() and owner.claimed_by.is_alive
    return any(
        status.stage == owner.stage and not status.state.ended for status in executor_of(run).statuses(run).values()
    )


def _set_aside(path: Path) -> None:
    """Rename an output and its manifest to the next free ``old_<name>.<n>``."""
    number = 1
    while (aside := path.with_name(f"old_{path.name}.{number}")).exists():
        number += 1
    beside = manifest_path(path)
    if path.exists():
        os.rename(path, aside)
    if beside.parent == path.parent and beside.exists():
        os.rename(beside, manifest_path(aside))


def _executor(cluster: ClusterConfig, upstream: Upstream, watcher: Watcher) -> Executor:
    secrets = private_environment(cluster)
    if cluster.is_local:
        return LocalExecutor(machine=Machine.here(), secrets=secrets, watcher=watcher)
    if cluster.executor is ExecutorKind.NEMO_RUN:
        from skills_pipe.pipeline.executors.nemo_run.executor import NemoRunExecutor

        return NemoRunExecutor(cluster=cluster, secrets=secrets, watcher=watcher)
    return SlurmExecutor(cluster=cluster, secrets=secrets, after=upstream.job_ids)
