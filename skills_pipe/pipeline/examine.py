"""Everything that can be found out about a plan before a job waits in a queue; all findings at once."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from skills_pipe.errors import ClusterConfigError, PlanError
from skills_pipe.pipeline.checks import gpu_hours
from skills_pipe.pipeline.checks.files import check_files, paths_to_look_at
from skills_pipe.pipeline.checks.finding import Checked, Finding, errors_in, warning
from skills_pipe.pipeline.checks.gpu import Gpu
from skills_pipe.pipeline.checks.images import check_images
from skills_pipe.pipeline.checks.preflight import check_cluster, check_hub_names, check_machine, check_paths
from skills_pipe.pipeline.checks.programs import check_programs, tests_of
from skills_pipe.pipeline.checks.questions import (
    NOTHING,
    Answers,
    Asking,
    AskingAlong,
    AskingMeanwhile,
    AskingNothing,
    Questions,
)
from skills_pipe.pipeline.checks.runtimes import check_runtime
from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.cluster.paths import PathMap
from skills_pipe.pipeline.decisions.decide import Action
from skills_pipe.pipeline.decisions.fingerprint import AN_INPUT, is_hub_id
from skills_pipe.pipeline.options.groups import CompatibilityOptions, JobOptions
from skills_pipe.pipeline.options.spelling import flag_of
from skills_pipe.pipeline.plan import Job, Launch, Plan

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.hub import HubModel, HubQuestions
    from skills_pipe.pipeline.checks.trials import Trials
    from skills_pipe.pipeline.decisions.preview import Preview
    from skills_pipe.pipeline.site.along import Along

OptionsT = TypeVar("OptionsT", bound=JobOptions)

ENV_NO_MOUNT_CHECK = "NEMO_SKILLS_DISABLE_MOUNT_CHECK"
"""Set to 1, files and folders on the cluster are not looked at."""

_NO_ANSWER = "Slurm does not answer here: partitions, limits, images and mounts are not checked"


@dataclass(frozen=True, kw_only=True)
class Request(Generic[OptionsT]):
    """What a check of one command may look at.

    Attributes:
        extras: words for the inner program.
        missing: inputs of the plan that do not exist, and that no earlier run promises.
        settled: stages that need not run any more: what they make is finished, or not needed.
        asked: tells what the cluster says, once it has said it.
        hub: model or data set on the Hugging Face hub -> what the hub says.
    """

    options: OptionsT
    extras: tuple[str, ...]
    cluster: ClusterConfig
    plan: Plan
    missing: frozenset[str] = frozenset()
    settled: frozenset[str] = frozenset()
    asked: Callable[[], Answers] = lambda: NOTHING
    hub: Mapping[str, HubModel] = field(default_factory=dict)

    @property
    def answers(self) -> Answers:
        """What the cluster says; waits for it."""
        return self.asked()

    def model_config(self, name: str) -> Mapping[str, Any] | None:
        """The ``config.json`` of a model, by its path as jobs see it or its id; None if it could not be read."""
        text = self.head(f"{name}/config.json") or (self.hub[name].config if name in self.hub else None)
        try:
            config = json.loads(text) if text else None
        except ValueError:
            return None
        return config if isinstance(config, Mapping) else None

    def gpu(self, job: Job) -> Gpu:
        """What is known about the GPUs that a job gets."""
        facts = self.answers.slurm
        names = (job.resources.partition or facts.default_partition or "").split(",") if facts else []
        known = [facts.partitions[name] for name in names if name in facts.partitions] if facts else []
        types = {kind for partition in known for kind in partition.gpu_types}
        return Gpu(type=next(iter(types)) if len(types) == 1 else None, gib=self.cluster.gpu_memory_gb)

    def head(self, path: str) -> bytes | None:
        """How a file begins, by its path as jobs see it; None if it could not be read."""
        place = PathMap.of(self.cluster).to_cluster(path)
        return self.answers.heads.get(place) if place is not None else None

    def caches(self) -> Mapping[str, str]:
        """Models and data sets on the hub that the plan reads -> where the jobs keep them, as the cluster names it."""
        return _cache_folders(self.cluster, _hub_names(self.plan, self.cluster))


Check = Callable[[Request[OptionsT]], "Sequence[Finding] | Checked"]
"""A check of one command: findings, or more words about how it went."""


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
    hub = _ask_hub(plan, cluster)
    on_paths = check_paths(plan, cluster)
    # Where paths lead nowhere, nothing can be said about what lies there, and no script can be made.
    leads = not errors_in(on_paths)
    programs = tests_of(cluster) if runtime else {}
    trials = _trials(plan, cluster) if leads else None
    wanted = Questions(headers=trials.headers if trials else {}, paths=_caches(plan, cluster), programs=programs)
    asking = _ask(plan, cluster, wanted)
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
        Checked(subject="paths", findings=(*on_paths, *check_hub_names(plan, cluster))),
        *([_check_hub(request)] if hub else []),
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
    explained = {finding.where for subject in subjects for finding in subject.findings}
    own = [finding for finding in seen.findings if finding.path is None or finding.path not in explained]
    return Checked(subject="inputs and outputs", findings=tuple(_with_its_option(finding, request) for finding in own))


def _with_its_option(finding: Finding, request: Request[OptionsT]) -> Finding:
    """An input that is missing, told with the option that names it."""
    if finding.where != AN_INPUT or finding.path is None:
        return finding
    # Or with the one that names the folder it lies in, as that of a training does for its checkpoints.
    names = (finding.path, str(PurePath(finding.path).parent))
    flags = (flag_of(name, request.options, request.cluster.absolute_or_id) for name in names)
    return replace(finding, where=next((flag for flag in flags if flag), AN_INPUT))


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


def _ask_hub(plan: Plan, cluster: ClusterConfig) -> HubQuestions | None:
    """Ask the hub for what a plan reads and is not here."""
    names = _hub_names(plan, cluster)
    if not names:
        return None
    # Imported here: most models are folders.
    from skills_pipe.pipeline.checks.hub import HubQuestions, offline

    if offline():
        return None
    return HubQuestions(names, token=_variables(cluster).get("HF_TOKEN"))


def _hub_names(plan: Plan, cluster: ClusterConfig) -> list[str]:
    inputs = dict.fromkeys(path for stage in plan.stages for path in stage.inputs)
    return [name for name in inputs if is_hub_id(name) and not (cluster.is_local and Path(name).exists())]


def _check_hub(request: Request[OptionsT]) -> Checked:
    from skills_pipe.pipeline.checks.hub import check_hub

    folders = _cache_folders(request.cluster, request.hub)
    looks = request.answers.looks
    cached = frozenset(name for name, folder in folders.items() if folder in looks and looks[folder].exists)
    return check_hub(request.hub, cached=cached, token="HF_TOKEN" in _variables(request.cluster))


def _cache_folders(cluster: ClusterConfig, names: Iterable[str]) -> dict[str, str]:
    """Model or data set -> where it is kept once it was downloaded, as the cluster names that folder."""
    names = list(names)
    if not names:
        return {}
    # Imported here: most models are folders.
    from skills_pipe.pipeline.checks.hub import cache_folder

    home = _variables(cluster).get("HF_HOME")
    if home is None and cluster.is_local:
        home = os.environ.get("HF_HOME") or str(Path("~/.cache/huggingface").expanduser())
    place = PathMap.of(cluster).to_cluster(home) if home else None
    return {name: f"{place}/hub/{cache_folder(name)}" for name in names} if place else {}


def _caches(plan: Plan, cluster: ClusterConfig) -> tuple[str, ...]:
    return tuple(_cache_folders(cluster, _hub_names(plan, cluster)).values())


def _variables(cluster: ClusterConfig) -> Mapping[str, str]:
    try:
        return cluster.environment()
    except ClusterConfigError:
        return {}  # told by the checks of the configuration


def _trials(plan: Plan, cluster: ClusterConfig) -> Trials | None:
    """What sbatch is to try; nothing where there is none."""
    if cluster.executor is not ExecutorKind.SLURM:
        return None
    # Imported here: there is no cluster in most dry runs.
    from skills_pipe.pipeline.checks.trials import Trials

    return Trials.of(plan, cluster)


def _ask(plan: Plan, cluster: ClusterConfig, wanted: Questions) -> Asking:
    """Ask the cluster, in one round trip; also this machine, for what jobs read here."""
    slurm, why_not = cluster.executor is ExecutorKind.SLURM, None
    if slurm and cluster.ssh_tunnel is None and shutil.which("sinfo") is None:
        slurm, why_not = False, "sinfo is not installed here"
    paths = (*wanted.paths, *(paths_to_look_at(plan, cluster) if slurm else ()))
    questions = replace(wanted, slurm=slurm, why_not=why_not, paths=paths, heads=_heads(plan, cluster))
    if not (slurm or questions.paths or questions.heads):
        return AskingNothing(why=why_not)
    # Imported here: the dry run of a command without such questions needs no processes.
    from skills_pipe.pipeline.transport.reach import is_behind_ssh, transport_of

    # A round trip through ssh takes longer than the questions, and longer than what could be done here meanwhile.
    kind = AskingAlong if is_behind_ssh(cluster) else AskingMeanwhile
    return kind(questions, transport_of(cluster))


def _heads(plan: Plan, cluster: ClusterConfig) -> tuple[str, ...]:
    """Files whose beginning tells something: rows of data, and the sizes of models."""
    paths = PathMap.of(cluster)
    inside = [path for stage in plan.stages for path in stage.inputs if path.startswith("/") or cluster.is_local]
    files = [path if path.endswith((".json", ".jsonl")) else f"{path}/config.json" for path in inside]
    places = [paths.to_cluster(path) for path in files]
    return tuple(dict.fromkeys(place for place in places if place is not None))


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
