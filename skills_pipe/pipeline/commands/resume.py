"""``ns resume``: submit the plan of an earlier run again; what is finished is skipped, the rest goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from skills_pipe.errors import OptionError, StoreError
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.console.command import Command as LauncherCommand
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.launch import Planner, launch
from skills_pipe.pipeline.notification import without_notification
from skills_pipe.pipeline.options.declaration import argument, option
from skills_pipe.pipeline.options.groups import CodeOptions, JobOptions, RunOptions
from skills_pipe.pipeline.options.records import RUN_HELP, RecordOptions
from skills_pipe.pipeline.options.spelling import command_line
from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.resuming import with_segments

if TYPE_CHECKING:
    from skills_pipe.pipeline.decisions.preview import Preview
    from skills_pipe.pipeline.submit import Submission


@dataclass(frozen=True, kw_only=True)
class ResumeOptions(RecordOptions, RunOptions, CodeOptions):
    """Resume."""

    expname: str = argument(metavar="EXPNAME", help=RUN_HELP)
    num_training_jobs: int | None = option(
        None, help="jobs in the chain of a training that is not finished; as many as before without it"
    )


def run(options: ResumeOptions, extras: tuple[str, ...]) -> Preview | Submission:
    """Submit the recorded plan as a new run of the same experiment.

    Raises:
        StoreError: some of it still runs or waits.
    """
    found = options.store.find(options.expname)
    plan = _plan(found, options)
    if not options.dry_run:
        _refuse_live(options, found)
    planned: Planner[JobOptions] = lambda _options, _extras, _cluster: plan  # noqa: E731
    submits = launch(planned, words=command_line("resume", options, extras))
    return submits(_as_job_options(options, plan), ())


COMMAND = LauncherCommand(options=ResumeOptions, run=run)


def _plan(found: Run, options: ResumeOptions) -> Plan:
    plan, count = without_notification(found.plan), options.num_training_jobs
    if count is None:
        return plan
    if count < 1:
        raise OptionError(f"--num_training_jobs is {count}", fix="set it to 1 or more")
    if not any(job.segment for job in plan.jobs):
        raise OptionError(f"{found} trains nothing", where="--num_training_jobs", fix="leave it away")
    return with_segments(plan, count)


def _refuse_live(options: ResumeOptions, found: Run) -> None:
    """Two runs of one plan would work on the same outputs, or start a second time what already waits."""
    for run in options.store.runs(found.expname):
        left = [status.job for status in statuses_of(run).values() if not status.state.ended]
        if left:
            cancel = options.typed(run).command("cancel", "--wait")
            raise StoreError(f"{run} still runs: {', '.join(left)}", fix=f"wait for it, or stop it with {cancel}")


def _as_job_options(options: ResumeOptions, plan: Plan) -> JobOptions:
    cluster: ClusterConfig = options.load()
    return JobOptions(
        cluster=options.cluster,
        config_dir=options.config_dir,
        # Those of the configuration come by themselves.
        mount_paths=tuple(mount for mount in plan.mounts if mount not in cluster.mounts),
        dry_run=options.dry_run,
        show_scripts=options.show_scripts,
        explain=options.explain,
        on_change=options.on_change,
        rerun=options.rerun,
        reuse_code=options.reuse_code,
        reuse_code_exp=options.reuse_code_exp,
        rerun_on_code_change=options.rerun_on_code_change,
    )
