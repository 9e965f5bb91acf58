"""Options -> plan -> submission: what every command that submits jobs does with its plan."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from skills_pipe.errors import PlanError
from skills_pipe.pipeline.checks.preflight import (
    Finding,
    Severity,
    check_cluster,
    check_hub_names,
    check_machine,
    check_paths,
    errors_in,
    warning,
)
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.cluster.load import load_cluster
from skills_pipe.pipeline.cluster.paths import is_below
from skills_pipe.pipeline.executors.nemo_run.target import stays_until_the_end
from skills_pipe.pipeline.options.groups import CompatibilityOptions, JobOptions
from skills_pipe.pipeline.plan import Job, Launch, Plan

if TYPE_CHECKING:
    from skills_pipe.pipeline.decisions.preview import Preview, SubmitFlags
    from skills_pipe.pipeline.submit import Submission

OptionsT = TypeVar("OptionsT", bound=JobOptions)

_planned: dict[str, Plan] = {}
"""Plans that this process has shown in dry runs: a Python script may dry-run a whole chain of commands."""


@dataclass(frozen=True, kw_only=True)
class Request(Generic[OptionsT]):
    """What a check of one command may look at.

    Attributes:
        extras: words for the inner program.
        missing: inputs of the plan that do not exist, and that no earlier run promises.
    """

    options: OptionsT
    extras: tuple[str, ...]
    cluster: ClusterConfig
    plan: Plan
    missing: frozenset[str]


Planner = Callable[[OptionsT, tuple[str, ...], ClusterConfig], Plan]
Check = Callable[[Request[OptionsT]], Sequence[Finding]]


def launch(
    plan: Planner[OptionsT], *, check: Check[OptionsT] | None = None, shows: Callable[[Job], bool] | None = None
) -> Callable[[OptionsT, tuple[str, ...]], Preview | Submission]:
    """The ``run`` of a command that submits jobs.

    Args:
        plan: makes the plan, without looking at anything but its arguments.
        check: findings of this command, beside those that hold for every plan.
        shows: tells jobs whose logs are what the user waits for: after a run on this machine they are printed.

    Returns:
        A function from options and words for the inner program to a ``Submission``, or a ``Preview`` for a dry run.
    """

    def run(options: OptionsT, extras: tuple[str, ...]) -> Preview | Submission:
        loaded = load_cluster(options.cluster, options.config_dir)
        cluster = replace(loaded, mounts=loaded.mounts + options.mount_paths)
        if options.skip_hf_home_check:
            cluster = replace(cluster, skip_hf_home_check=True)
        made = plan(options, extras, cluster)
        seen = _look(options, extras, cluster, made, check)
        if options.dry_run:
            return seen
        submission = _submit(made, cluster, options)
        if not stays_until_the_end(cluster):
            _announce(submission, made, options)
        elif shows:
            _print_logs(submission, [job.name for job in made.jobs if shows(job)])
        return submission

    return run


def _look(
    options: OptionsT, extras: tuple[str, ...], cluster: ClusterConfig, plan: Plan, check: Check[OptionsT] | None
) -> Preview:
    """What the submission would do; the plan of a dry run and all findings are shown.

    Raises:
        PlanError: something stops the submission; all of it is told.
    """
    # Imported here: these are heavier than planning, and --help does not need them.
    from skills_pipe.pipeline import display
    from skills_pipe.pipeline.decisions.preview import preview

    on_paths = check_paths(plan, cluster)
    assumed = _assume_planned(plan) if options.dry_run else plan
    # Where paths lead nowhere, nothing can be said about what lies there.
    seen = None if errors_in(on_paths) else preview(assumed, cluster, _flags(options))
    request = Request(options=options, extras=extras, cluster=cluster, plan=plan, missing=_missing(seen))
    own = [*_check_everywhere(options, plan, cluster), *on_paths, *(check(request) if check else ())]
    findings = _merge(own, seen.findings if seen else ())
    if options.dry_run and seen:
        display.show_plan(seen)
        if options.show_scripts:
            display.show_scripts(seen)
        _planned[plan.expname] = plan
    display.show_findings([finding for finding in findings if finding.severity is Severity.WARNING])
    _stop_on_errors(findings)
    if seen is None:
        raise RuntimeError("paths that lead nowhere were not reported")
    return seen


def _submit(plan: Plan, cluster: ClusterConfig, options: JobOptions) -> Submission:
    from skills_pipe.pipeline.submit import submit

    return submit(plan, cluster, flags=_flags(options))


def _flags(options: JobOptions) -> SubmitFlags:
    from skills_pipe.pipeline.decisions.preview import SubmitFlags

    return SubmitFlags(rerun=options.rerun, on_change=options.on_change, explain=options.explain)


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
        sys.stdout.write(Path(log).read_text(errors="replace"))
    sys.stdout.flush()


def _check_everywhere(options: JobOptions, plan: Plan, cluster: ClusterConfig) -> list[Finding]:
    findings = [*check_cluster(plan, cluster), *check_hub_names(plan, cluster)]
    if cluster.is_local and any(job.command.launch is Launch.PER_GPU or job.resources.num_gpus for job in plan.jobs):
        from skills_pipe.pipeline.executors.machine import Machine

        findings += check_machine(plan, gpus=len(Machine.here().gpus))
    if options.show_scripts and not options.dry_run:
        findings.append(warning("--show_scripts has no effect", fix="add --dry_run"))
    defaults = {field.name: field.default for field in fields(CompatibilityOptions)}
    for name, default in defaults.items():
        if getattr(options, name) != default:
            findings.append(warning(f"{name} has no effect: jobs use the installed code, and paths are always checked"))
    return findings


def _assume_planned(plan: Plan) -> Plan:
    """The plan as if the dry runs before it had been submitted: it neither waits for them nor misses their outputs."""
    before = [_planned[name] for name in plan.run_after if name in _planned]
    promised = [stage.output for earlier in before for stage in earlier.stages if stage.output]
    stages = tuple(
        replace(stage, inputs=tuple(path for path in stage.inputs if not any(is_below(path, out) for out in promised)))
        for stage in plan.stages
    )
    return replace(plan, stages=stages, run_after=tuple(name for name in plan.run_after if name not in _planned))


def _missing(seen: Preview | None) -> frozenset[str]:
    """Inputs for which the preview has found no fingerprint."""
    identities = seen.identities.values() if seen else ()
    marks = [item for identity in identities for item in identity.fields["inputs"].items()]
    return frozenset(path for path, mark in marks if mark == "missing")


def _merge(own: Sequence[Finding], seen: Sequence[Finding]) -> list[Finding]:
    """All findings; one about a path that a check of the command explains better is left out."""
    explained = {finding.where for finding in own if finding.where}
    return [*own, *(finding for finding in seen if not any(path in finding.what for path in explained))]


def _stop_on_errors(findings: Sequence[Finding]) -> None:
    stopping = errors_in(findings)
    if len(stopping) == 1:
        raise PlanError(stopping[0].what, where=stopping[0].where, fix=stopping[0].fix)
    if stopping:
        raise PlanError("\n".join(str(finding).removeprefix("error: ") for finding in stopping))
