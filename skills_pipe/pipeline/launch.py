"""Options -> plan -> submission: what every command that submits jobs does with its plan."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from skills_pipe.errors import UserError
from skills_pipe.pipeline.checks.code_tree import check_code
from skills_pipe.pipeline.checks.finding import Checked, Finding, Severity
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.cluster.load import load_cluster
from skills_pipe.pipeline.cluster.paths import is_below
from skills_pipe.pipeline.notification import with_notification
from skills_pipe.pipeline.options.groups import JobOptions
from skills_pipe.pipeline.options.spelling import command_line
from skills_pipe.pipeline.plan import Job, Plan

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Check, Request
    from skills_pipe.pipeline.decisions.preview import Preview, SubmitFlags
    from skills_pipe.pipeline.examine import Examination
    from skills_pipe.pipeline.submit import Submission

OptionsT = TypeVar("OptionsT", bound=JobOptions)

_planned: dict[str, Plan] = {}
"""Plans that this process has shown in dry runs: a Python script may dry-run a whole chain of commands."""


Planner = Callable[[OptionsT, tuple[str, ...], ClusterConfig], Plan]


def launch(
    plan: Planner[OptionsT],
    *,
    checks: Mapping[str, Check[OptionsT]] | None = None,
    shows: Callable[[Job], bool] | None = None,
    words: tuple[str, ...] = (),
) -> Launcher[OptionsT]:
    """The ``run`` of a command that submits jobs.

    Args:
        plan: makes the plan, without looking at anything but its arguments.
        checks: subject -> findings of this command, beside those that hold for every plan.
        shows: tells jobs whose logs are what the user waits for: after a run on this machine they are printed.
        words: the command line to record, when it is not the one that the options tell.
    """
    return Launcher(plan=plan, checks=checks or {}, shows=shows, words=words)


@dataclass(frozen=True, kw_only=True)
class Launcher(Generic[OptionsT]):
    """What a command does that submits jobs; see :func:`launch` for its fields."""

    plan: Planner[OptionsT]
    checks: Mapping[str, Check[OptionsT]]
    shows: Callable[[Job], bool] | None
    words: tuple[str, ...]

    def __call__(self, options: OptionsT, extras: tuple[str, ...]) -> Preview | Submission:
        """Submit the plan of options and words for the inner program; for a dry run a ``Preview`` of it."""
        request = self._request(options, extras)
        flags, on_code = _flags(options, request.cluster)
        found = _examine(request, self.checks, flags, check_code(flags.code, on_code))
        _show(request, found)
        found.stop_on_errors()
        if found.preview is None:
            raise RuntimeError("paths that lead nowhere were not reported")
        if options.dry_run:
            return found.preview
        flags = replace(flags, command=self.words or command_line(request.plan.command, options, extras))
        submission = _submit(found.preview, request.cluster, flags)
        self._tell(submission, request)
        return submission

    def examine(self, options: OptionsT, extras: tuple[str, ...]) -> Examination:
        """Check everything, submit nothing and show nothing."""
        request = self._request(options, extras)
        flags, on_code = _flags(options, request.cluster)
        return _examine(request, self.checks, flags, check_code(flags.code, on_code, closely=True))

    def _tell(self, submission: Submission, request: Request[OptionsT]) -> None:
        """What became of the run: that its jobs are queued, or what they wrote where they have ended."""
        from skills_pipe.pipeline.executors.nemo_run.target import stays_until_the_end
        from skills_pipe.pipeline.reports.model import MadeModel
        from skills_pipe.pipeline.scripts.place import locator

        model = MadeModel.of(request.plan, locator(request.cluster, request.plan))
        if not stays_until_the_end(request.cluster):
            _announce(submission, request.plan, request.options)
            if model:
                print(model.to_come() if submission.job_ids else model.made())
            return
        if self.shows:
            _print_logs(submission, [job.name for job in request.plan.jobs if self.shows(job)])
        if model and submission.succeeded:
            print(model.made())

    def _request(self, options: OptionsT, extras: tuple[str, ...]) -> Request[OptionsT]:
        # Imported here, as the rest of what follows planning: --help does not need it.
        from skills_pipe.pipeline.checks.request import Request

        loaded = load_cluster(options.cluster, options.config_dir)
        cluster = replace(loaded, mounts=loaded.mounts + options.mount_paths)
        if options.skip_hf_home_check:
            cluster = replace(cluster, skip_hf_home_check=True)
        plan = with_notification(self.plan(options, extras, cluster), cluster)
        return Request(options=options, extras=extras, cluster=cluster, plan=plan)


def _show(request: Request[OptionsT], found: Examination) -> None:
    """The plan of a dry run, and all warnings."""
    # Imported here: it is heavier than planning, and --help does not need it.
    from skills_pipe.pipeline.display.plan import show_findings, show_plan, show_scripts

    seen = found.preview
    if request.options.dry_run and seen:
        show_plan(seen, notes=found.notes)
        if request.options.show_scripts:
            show_scripts(seen)
        _planned[request.plan.expname] = request.plan
    show_findings([finding for finding in found.findings if finding.severity is Severity.WARNING])


def _examine(
    request: Request[OptionsT], checks: Mapping[str, Check[OptionsT]], flags: SubmitFlags, code: Checked
) -> Examination:
    from skills_pipe.pipeline.decisions.preview import preview
    from skills_pipe.pipeline.examine import examine

    plan = _assume_planned(request.plan) if request.options.dry_run else request.plan
    found = examine(request, lambda along: preview(plan, request.cluster, flags, along=along), checks)
    return replace(found, checked=(code, *found.checked))


def _submit(seen: Preview, cluster: ClusterConfig, flags: SubmitFlags) -> Submission:
    from skills_pipe.pipeline.submit import submit

    return submit(seen.plan, cluster, flags=flags, seen=seen)


def _flags(options: JobOptions, cluster: ClusterConfig) -> tuple[SubmitFlags, list[Finding]]:
    """How to treat what is there, with the code of the jobs, and why that cannot be had."""
    from skills_pipe.pipeline.code.choose import CodeChoice, choose
    from skills_pipe.pipeline.decisions.preview import SubmitFlags

    flags = SubmitFlags(
        rerun=options.rerun,
        on_change=options.on_change,
        explain=options.explain,
        rerun_on_code_change=options.rerun_on_code_change,
    )
    choice = CodeChoice(
        reuse=options.reuse_code, experiment=options.reuse_code_exp, identifies=options.rerun_on_code_change
    )
    try:
        return replace(flags, code=choose(choice, cluster)), []
    except UserError as error:
        return flags, [Finding(severity=Severity.ERROR, what=error.what, where=error.where, fix=error.fix)]


def _announce(submission: Submission, plan: Plan, options: JobOptions) -> None:
    ids = ", ".join(submission.job_ids[job.name] for job in plan.jobs if job.name in submission.job_ids)
    queued = f"queued as {ids}" if ids else "nothing to do"
    cluster = f" --cluster={options.cluster}" if isinstance(options.cluster, str) else ""
    print(f"{submission.expname}: {queued}; `ns status {submission.expname}{cluster}` shows how far it is")


def _print_logs(submission: Submission, jobs: Sequence[str]) -> None:
    """What the jobs of a run on this machine have written; those that were skipped have written nothing."""
    from skills_pipe.pipeline.records.store import Run

    record = Run(submission.run_dir).submission
    logs = [record.logs[job] for job in jobs if record and job in record.logs]
    for log in logs:
        if Path(log).exists():  # a retry that was not needed has none
            sys.stdout.write(Path(log).read_text(errors="replace"))
    sys.stdout.flush()


def _assume_planned(plan: Plan) -> Plan:
    """The plan as if the dry runs before it had been submitted: it neither waits for them nor misses their outputs."""
    before = [_planned[name] for name in plan.run_after if name in _planned]
    promised = [stage.output for earlier in before for stage in earlier.stages if stage.output]
    stages = tuple(
        replace(stage, inputs=tuple(path for path in stage.inputs if not any(is_below(path, out) for out in promised)))
        for stage in plan.stages
    )
    return replace(plan, stages=stages, run_after=tuple(name for name in plan.run_after if name not in _planned))
