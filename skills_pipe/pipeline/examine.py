"""Everything that can be found out about a plan before a job waits in a queue; all findings at once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from skills_pipe.errors import PlanError
from skills_pipe.pipeline.checks import gpu_hours
from skills_pipe.pipeline.checks.asking import ask_cluster, trials_of
from skills_pipe.pipeline.checks.files import check_files
from skills_pipe.pipeline.checks.finding import Checked, Finding, errors_in, warning
from skills_pipe.pipeline.checks.hub_inputs import ask_hub, caches, check_hub_inputs
from skills_pipe.pipeline.checks.images import check_images
from skills_pipe.pipeline.checks.preflight import (
    check_cluster,
    check_hub_names,
    check_machine,
    check_overlaps,
    check_paths,
)
from skills_pipe.pipeline.checks.programs import check_programs, tests_of
from skills_pipe.pipeline.checks.questions import Questions
from skills_pipe.pipeline.checks.request import Check, OptionsT, Request
from skills_pipe.pipeline.checks.runtimes import check_runtime
from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.decisions.decide import Action
from skills_pipe.pipeline.decisions.fingerprint import AN_INPUT
from skills_pipe.pipeline.options.groups import CompatibilityOptions, JobOptions
from skills_pipe.pipeline.options.overrides import key_that_names
from skills_pipe.pipeline.options.spelling import flag_of
from skills_pipe.pipeline.plan import Launch, Plan

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.trials import Trials
    from skills_pipe.pipeline.decisions.preview import Preview
    from skills_pipe.pipeline.site.along import Along

ENV_NO_MOUNT_CHECK = "NEMO_SKILLS_DISABLE_MOUNT_CHECK"
"""Set to 1, files and folders on the cluster are not looked at."""

_NO_ANSWER = "Slurm does not answer here: partitions, limits, images and mounts are not checked"


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was found.

    Attributes:
        preview: what a submission would do; None where paths lead nowhere.
        checked: the subjects of the checks, in the order in which they are told.
    """

    preview: Preview | None
    checked: tuple[Checked, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys(finding for subject in self.checked for finding in subject.findings))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a plan may cost, and other things that are good to know before it is submitted."""
        hours = gpu_hours.describe(self.preview.to_run.jobs) if self.preview else None
        own = [subject.note for subject in self.checked if subject.note and subject.told]
        return (*([hours] if hours else []), *own)

    @property
    def errors(self) -> list[Finding]:
        """Those that would stop a submission."""
        return errors_in(self.findings)

    def stop_on_errors(self) -> None:
        """Refuse a plan with errors.

        Raises:
            PlanError: there are some; all of them are told.
        """
        stopping = self.errors
        if len(stopping) == 1:
            raise PlanError(stopping[0].what, where=stopping[0].where, fix=stopping[0].fix)
        if stopping:
            raise PlanError("\n".join(str(finding).removeprefix("error: ") for finding in stopping))


def examine(
    request: Request[OptionsT],
    look_ahead: Callable[[Along | None], Preview],
    checks: Mapping[str, Check[OptionsT]],
    *,
    runtime: bool = False,
) -> Examination:
    """Check a plan.

    Args:
        request: the plan, and what it was made of.
        look_ahead: makes the preview, and takes questions to the cluster along; it is not called where paths lead
            nowhere.
        checks: subject -> check, of the command.
        runtime: look for the container runtime too.
    """
    plan, cluster = request.plan, request.cluster
    hub = ask_hub(plan, cluster)
    on_paths = check_paths(plan, cluster)
    # Where paths lead nowhere, nothing can be said about what lies there, and no script can be made.
    leads = not errors_in(on_paths)
    programs = tests_of(cluster) if runtime else {}
    trials = trials_of(plan, cluster) if leads else None
    wanted = Questions(headers=trials.headers if trials else {}, paths=caches(plan, cluster), programs=programs)
    asking = ask_cluster(plan, cluster, wanted)
    # The cluster answers meanwhile, or in the same round trip.
    seen = look_ahead(asking.along) if leads else None
    request = replace(
        request,
        missing=_missing(seen),
        settled=_settled(seen),
        asked=asking.answers,
        hub=hub.answers() if hub else {},
    )
    own = [_run_check(subject, check, request) for subject, check in checks.items()]
    subjects = [
        Checked(
            subject="configuration",
            findings=(*check_cluster(plan, cluster), *check_images(plan, cluster), *check_runtime(plan, cluster)),
        ),
        Checked(subject="options", findings=tuple(_check_options(request.options, plan, cluster))),
        Checked(subject="paths", findings=(*on_paths, *check_overlaps(plan, cluster), *check_hub_names(plan, cluster))),
        *([check_hub_inputs(request.hub, cluster, request.answers.looks)] if hub else []),
        *own,
    ]
    subjects += [_inputs(seen, subjects, request), *([check_programs(cluster, request.answers)] if runtime else [])]
    return Examination(preview=seen, checked=(*subjects, *_on_cluster(request, seen, trials)))


def _run_check(subject: str, check: Check[OptionsT], request: Request[OptionsT]) -> Checked:
    found = check(request)
    return found if isinstance(found, Checked) else Checked(subject=subject, findings=tuple(found))


def _inputs(seen: Preview | None, subjects: Sequence[Checked], request: Request[OptionsT]) -> Checked:
    """What the preview has found; an input that a check of the command has told something about is left out."""
    if seen is None:
        return Checked(subject="inputs and outputs", left_out="paths lead nowhere")
    explained = {place for subject in subjects for told in subject.findings for place in (told.where, told.path)}
    own = [finding for finding in seen.findings if finding.path is None or finding.path not in explained]
    return Checked(subject="inputs and outputs", findings=tuple(_with_its_option(finding, request) for finding in own))


def _with_its_option(finding: Finding, request: Request[OptionsT]) -> Finding:
    """An input that is missing, told with the option that names it."""
    if finding.where != AN_INPUT or finding.path is None:
        return finding
    # Or with the one that names the folder it lies in, as that of a training does for its checkpoints.
    names = (finding.path, str(PurePath(finding.path).parent))
    read = request.cluster.absolute_or_id
    flags = (flag_of(name, request.options, read) for name in names)
    # Texts are files, never ids.
    keys = (key_that_names(finding.path, request.extras, way) for way in (read, request.cluster.absolute))
    return replace(finding, where=next(filter(None, (*flags, *keys)), AN_INPUT))


def _on_cluster(request: Request[OptionsT], seen: Preview | None, trials: Trials | None) -> list[Checked]:
    """What only the cluster itself can tell."""
    plan, cluster, answers = request.plan, request.cluster, request.answers
    if cluster.is_local:
        return [_places(request, seen)]
    if cluster.executor is not ExecutorKind.SLURM:
        return []
    facts = answers.slurm
    if facts is None:
        told = (warning(_NO_ANSWER),) if request.options.dry_run else ()
        return [Checked(subject="the cluster itself", findings=told, left_out=answers.unreachable)]
    # Imported here: there is no cluster in most dry runs.
    from skills_pipe.pipeline.checks.limits import check_accounting, check_partitions, check_trials

    to_run = seen.to_run if seen else plan
    partitions = check_partitions(to_run, cluster, facts)
    accounting = check_accounting(to_run, cluster, facts)
    tried = trials.of_jobs(to_run, facts.trials) if trials else {}
    refused = check_trials(to_run, replace(facts, trials=tried), [*partitions, *accounting])
    skipped = os.environ.get(ENV_NO_MOUNT_CHECK) == "1"
    # Without the number that sbatch gives to a job which is never submitted.
    starts = {re.sub(r"^Job \d+ ", "", trial.words) for trial in tried.values() if trial.accepted}
    return [
        Checked(subject="files on the cluster", left_out=f"{ENV_NO_MOUNT_CHECK} is set")
        if skipped
        else Checked(subject="files on the cluster", findings=tuple(check_files(plan, cluster, answers))),
        Checked(subject="partitions", findings=tuple(partitions)),
        Checked(
            subject="accounts and limits",
            findings=tuple(accounting),
            left_out="Slurm keeps no accounts" if facts.associations is None else None,
        ),
        Checked(
            subject="sbatch --test-only",
            findings=tuple(refused),
            note="; ".join(sorted(starts)),
            left_out=None if tried else "there is nothing to submit",
        ),
    ]


def _places(request: Request[OptionsT], seen: Preview | None) -> Checked:
    """Whether the jobs can write where they want to, on this machine."""
    from skills_pipe.pipeline.checks.places import check_places

    absolute = request.cluster.absolute_or_id
    found = check_places(seen.to_run if seen else request.plan, lambda path: flag_of(path, request.options, absolute))
    return Checked(subject="folders to write to", findings=tuple(found))


def _missing(seen: Preview | None) -> frozenset[str]:
    """Inputs for which the preview has found no fingerprint."""
    identities = seen.identities.values() if seen else ()
    marks = [item for identity in identities for item in identity.fields["inputs"].items()]
    return frozenset(path for path, mark in marks if mark == "missing")


def _settled(seen: Preview | None) -> frozenset[str]:
    decisions = seen.decisions if seen else ()
    return frozenset(decision.stage for decision in decisions if decision.action in (Action.SKIP, Action.NOT_NEEDED))


def _check_options(options: JobOptions, plan: Plan, cluster: ClusterConfig) -> list[Finding]:
    """Options that ask for more than this machine has, or that do nothing."""
    findings = []
    if cluster.is_local and any(job.command.launch is Launch.PER_GPU or job.resources.num_gpus for job in plan.jobs):
        from skills_pipe.pipeline.executors.machine import Machine

        findings += check_machine(plan, gpus=len(Machine.here().gpus))
    if options.show_scripts and not options.dry_run:
        findings.append(warning("--show_scripts has no effect", fix="add --dry_run"))
    if options.reuse_code_exp and cluster.executor is not ExecutorKind.SLURM:
        findings.append(warning("--reuse_code_exp has no effect: only jobs on Slurm bring code along"))
    defaults = {field.name: field.default for field in fields(CompatibilityOptions)}
    for name, default in defaults.items():
        if getattr(options, name) != default:
            findings.append(warning(f"{name} has no effect: paths are always checked"))
    return findings
