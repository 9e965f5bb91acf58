"""What a submission would do: identities, decisions, scripts and findings; nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from skills_pipe.artifacts.identity import Identity
from skills_pipe.pipeline.checks.finding import Finding, Severity
from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.code.package import Code
from skills_pipe.pipeline.decisions.changes import (
    checkpoints_still_fit,
    kept_by_checkpoints,
    maybe_kept_by_checkpoints,
    only_inputs_changed,
)
from skills_pipe.pipeline.decisions.decide import Action, Decision, Judge, OnChange
from skills_pipe.pipeline.decisions.fingerprint import A_FOLDER, covers, is_hub_id, missing_input
from skills_pipe.pipeline.decisions.upstream import Upstream, resolve
from skills_pipe.pipeline.executors.schedule import reduced
from skills_pipe.pipeline.executors.slurm.commands import Slurm
from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.records.store import Run, store_of
from skills_pipe.pipeline.scripts.place import locator, render
from skills_pipe.pipeline.scripts.submission import submission_script
from skills_pipe.pipeline.site.along import Along
from skills_pipe.pipeline.site.site import Facts, Want
from skills_pipe.pipeline.transport.reach import transport_of


@dataclass(frozen=True, kw_only=True)
class SubmitFlags:
    """How to treat what is there already.

    Attributes:
        rerun: run every stage; finished outputs are set aside.
        on_change: what to do with outputs that were made with other options; None refuses.
        explain: say for every stage why it runs or not, and what changed.
        code: the code of the jobs; None for the installed package.
        rerun_on_code_change: the hash of the code is part of what outputs are made of.
        command: the words behind ``ns`` that asked for the run, for the record.
    """

    rerun: bool = False
    on_change: OnChange | None = None
    explain: bool = False
    code: Code | None = None
    rerun_on_code_change: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class Preview:
    """What a submission would do.

    Attributes:
        plan: the whole plan.
        to_run: the part of it that has to be run: its jobs and the edges among them.
        run: the run that it would be.
        decisions: one for each stage.
        identities: stage -> identity, for all whose inputs are known.
        scripts: job -> text of its script, for the jobs of ``to_run``.
        findings: what stops it, or may surprise.
        upstream: the runs before it.
        code: folder of the cluster with the code of the jobs; None for that of the installed package.
        queueing: the script that queues the jobs on Slurm; ids that are known only later are variables in it.
    """

    plan: Plan
    to_run: Plan
    run: Run
    decisions: tuple[Decision, ...]
    identities: Mapping[str, Identity]
    scripts: Mapping[str, str]
    findings: tuple[Finding, ...]
    upstream: Upstream
    code: str | None = None
    queueing: str | None = None

    def __repr__(self) -> str:
        """Short: in a notebook a dry run is often the last expression."""
        actions = ", ".join(f"{decision.stage} {decision.action.value}" for decision in self.decisions)
        return f"<dry run of {self.plan.expname}: {actions}>"

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop it."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)


def preview(
    plan: Plan, cluster: ClusterConfig, flags: SubmitFlags | None = None, *, along: Along | None = None
) -> Preview:
    """What a submission would do now.

    Args:
        along: runs on the login node while the files are looked at.
    """
    flags = flags or SubmitFlags()
    store = store_of(cluster)
    facts = store.look([plan.expname], _wanted(plan, cluster), along=along)
    run = store.next_run(plan.expname)
    upstream = resolve(plan.run_after, store, None if cluster.is_local else Slurm(transport_of(cluster)))
    identities, findings = _identities(_with_code(plan, flags), cluster, upstream, facts)
    locate = locator(cluster, plan)
    judge = Judge(locate=lambda path: str(locate(path)), facts=facts, rerun=flags.rerun, on_change=flags.on_change)
    decisions = judge.decide(plan, identities)
    code = flags.code.folder(cluster.job_dir) if flags.code else None
    to_run = reduced(plan, {decision.stage for decision in decisions if decision.action.runs})
    return Preview(
        plan=plan,
        to_run=to_run,
        run=run,
        decisions=decisions,
        identities=identities,
        scripts={job.name: render(job, to_run, cluster, run, code) for job in to_run.jobs},
        findings=(
            *upstream.findings,
            *findings,
            *_refusals(plan, decisions),
            *_misfits(decisions),
            *_refused_by_executor(to_run, cluster, run, upstream),
        ),
        upstream=upstream,
        code=code,
        queueing=_queueing(to_run, cluster, run, upstream),
    )


def _queueing(to_run: Plan, cluster: ClusterConfig, run: Run, upstream: Upstream) -> str | None:
    if cluster.executor is not ExecutorKind.SLURM or not to_run.jobs:
        return None
    return submission_script(to_run, cluster, run, upstream.job_ids)


def _with_code(plan: Plan, flags: SubmitFlags) -> Plan:
    """The plan, its stages made of the code too if that is asked for."""
    if not flags.rerun_on_code_change or flags.code is None:
        return plan
    mark = {"code": flags.code.hash}
    return replace(plan, stages=tuple(replace(stage, options={**stage.options, **mark}) for stage in plan.stages))


def _identities(
    plan: Plan, cluster: ClusterConfig, upstream: Upstream, facts: Mapping[str, Facts]
) -> tuple[dict[str, Identity], tuple[Finding, ...]]:
    """Stage -> identity, and what is wrong with the inputs."""
    locate = locator(cluster, plan)
    identities: dict[str, Identity] = {}
    findings: list[Finding] = []
    for stage in plan.stages:
        inputs: dict[str, str] = {}
        for path in stage.inputs:
            known = facts.get(str(locate(path)), Facts())
            mark = _being_made(path, known, upstream) or known.fingerprint or _promised(path, upstream)
            if (known.fingerprint or "").startswith(A_FOLDER):
                findings += _grows(path, plan)
            if known.error:
                findings.append(_unreadable(path, known.error))
            elif mark is None:
                findings.append(_missing(path, stage.name))
            inputs[path] = mark or "missing"
        # As a later run finds them on disk: the same conversion is the same, in a plan with its training or alone.
        inputs |= {made: _made_by(identities[name]) for name, made in _outputs(plan, stage.upstream)}
        identities[stage.name] = Identity.of(options=stage.options, inputs=inputs)
    return identities, tuple(findings)


def _wanted(plan: Plan, cluster: ClusterConfig) -> dict[str, list[Want]]:
    """What has to be known of the inputs and outputs of the plan."""
    locate = locator(cluster, plan)
    wanted: dict[str, list[Want]] = {}
    for stage in plan.stages:
        # The names of models on the hub are no paths, whatever lies in the folder that this runs in.
        for path in (locate(path) for path in stage.inputs):
            if path.is_absolute():
                wanted.setdefault(str(path), []).append(Want.FINGERPRINT)
        if stage.output is not None:
            wanted.setdefault(str(locate(stage.output)), []).append(Want.OUTPUT)
    return wanted


def _unreadable(path: str, why: str) -> Finding:
    what = f"{path} cannot be read ({why})"
    return Finding(severity=Severity.ERROR, what=what, fix="see to its permissions", path=path)


def _grows(folder: str, plan: Plan) -> list[Finding]:
    """An input whose files count, and to which the run itself would add some: the next run would find it changed."""
    inside = [stage.output for stage in plan.stages if stage.output and covers(folder, stage.output)]
    if not inside:
        return []
    what = f"{inside[0]} would be written into {folder}, which is read: a later run will find that changed"
    return [Finding(severity=Severity.WARNING, what=what, fix="choose another output")]


def _being_made(path: str, known: Facts, upstream: Upstream) -> str | None:
    """Fingerprint of an input that a run before is at work on: what lies there is not what will be read.

    A part of its output that is sealed, like a checkpoint, stays as it is.
    """
    sealed = known.fingerprint is not None and known.fingerprint.startswith("stage:")
    identity = upstream.still_makes(path, whole=sealed)
    return _made_by(identity) if identity else None


def _promised(path: str, upstream: Upstream) -> str | None:
    """Fingerprint of an input that is not there: a run before makes it, or it is on the hub."""
    identity = upstream.promise(path)
    if identity is not None:
        return _made_by(identity)
    return f"hub:{path.removeprefix('hf://')}" if is_hub_id(path) else None


def _made_by(identity: Identity) -> str:
    """Fingerprint of what a stage of this identity makes."""
    return f"stage:{identity.digest}"


def _outputs(plan: Plan, stages: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Stage and output, for those of ``stages`` that make one."""
    for name in stages:
        output = plan.stage(name).output
        if output is not None:
            yield name, output


def _refused_by_executor(plan: Plan, cluster: ClusterConfig, run: Run, upstream: Upstream) -> list[Finding]:
    """What the executor of the cluster cannot do; our own can do all that a plan says."""
    if cluster.executor is not ExecutorKind.NEMO_RUN:
        return []
    from skills_pipe.pipeline.executors.nemo_run.refusals import refusals

    return refusals(plan, cluster, run, after=upstream.job_ids)


def _refusals(plan: Plan, decisions: tuple[Decision, ...]) -> list[Finding]:
    """One finding for each refused stage; one that is refused only for a refused upstream is not told again."""
    refused = {decision.stage: decision for decision in decisions if decision.action is Action.REFUSE}
    findings = []
    for decision in refused.values():
        before = [name for name in plan.stage(decision.stage).upstream if name in refused]
        if only_inputs_changed(decision.changes, [output for _, output in _outputs(plan, before)]):
            continue
        changes = f": {'; '.join(decision.changes)}" if decision.changes else ""
        findings.append(
            Finding(
                severity=Severity.ERROR,
                what=f"stage {decision.stage!r}: {decision.reason}{changes}",
                fix=_ways_on(decision.changes),
            )
        )
    return findings


def _misfits(decisions: tuple[Decision, ...]) -> Iterator[Finding]:
    """Trainings, whose keys these are, that are told to go on, and will refuse to, or may."""
    for decision in decisions:
        if decision.action is not Action.CONTINUE:
            continue
        for told, changes in (
            ("the trainer goes on from no checkpoint of another", kept_by_checkpoints(decision.changes)),
            ("the trainer goes on only where both keep the same states", maybe_kept_by_checkpoints(decision.changes)),
        ):
            if changes:
                what = f"stage {decision.stage!r}: {told}: {'; '.join(changes)}"
                yield Finding(severity=Severity.WARNING, what=what, fix="undo that, or use --on_change=restart")


def _ways_on(changes: tuple[str, ...]) -> str:
    goes_on = "--on_change=continue to go on from what is there, " if checkpoints_still_fit(changes) else ""
    return f"add {goes_on}--on_change=restart to set it aside, or choose another output folder"


def _missing(path: str, stage: str) -> Finding:
    error = missing_input(path, stage)
    return Finding(severity=Severity.ERROR, what=error.what, where=error.where, fix=error.fix, path=path)
