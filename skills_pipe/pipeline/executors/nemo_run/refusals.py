"""What of a plan nemo-run cannot honour: told before anything is submitted, job by job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from skills_pipe.errors import ClusterConfigError
from skills_pipe.pipeline.checks.finding import Finding, error, warning
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, RankLauncher
from skills_pipe.pipeline.cluster.paths import RUN_DIR, is_below
from skills_pipe.pipeline.executors.nemo_run.target import Settings
from skills_pipe.pipeline.plan import EdgeKind, Job, Launch, Plan
from skills_pipe.pipeline.records.store import Run

_PLAIN = re.compile(r"[\w./+=@-]+", re.ASCII)
_RUN_DIR_IN_TEXT = re.compile(rf"(?<![\w./-]){RUN_DIR}(?![\w-])", re.ASCII)
_OTHER_EXECUTOR = "use executor: slurm"


def refusals(plan: Plan, cluster: ClusterConfig, run: Run, *, after: Sequence[str] = ()) -> list[Finding]:
    """Everything that stops a plan from going to nemo-run, and what of it will have no effect there.

    Args:
        after: ids of Slurm jobs that must end well first.
    """
    try:
        settings = Settings.of(cluster)
    except ClusterConfigError as problem:
        return [error(problem.what, where=problem.where, fix=problem.fix)]
    findings = [*_about_cluster(cluster, settings, run), *_about_jobs(plan, cluster, settings)]
    if after and not settings.target.queued:
        findings.append(
            error(
                f"nemo-run's {settings.name} executor cannot wait for jobs of Slurm ({', '.join(after)})",
                where="--run_after",
                fix="wait until they have ended",
            )
        )
    return findings + ([] if settings.target.queued else list(_without_effect(plan, settings)))


def _about_cluster(cluster: ClusterConfig, settings: Settings, run: Run) -> Iterator[Finding]:
    where = f"cluster {cluster.name!r}"
    target, name = settings.target, settings.name
    contained = cluster.container_runtime is not ContainerRuntime.NONE
    if cluster.ssh_tunnel is not None:
        yield error(
            "nemo-run's own ssh is not used",
            where=f"ssh_tunnel of {where}",
            fix="run ns on a login node, or use executor: slurm with it",
        )
    if contained and target.image is None:
        yield error(f"nemo-run's {name} executor has no containers", where=f"containers of {where}", fix="remove them")
    if not contained and target.image and not target.queued:
        yield error(f"nemo-run's {name} executor needs an image", where=where, fix="add the section containers")
    if target.queued and cluster.container_runtime not in (ContainerRuntime.PYXIS, ContainerRuntime.NONE):
        runtime = cluster.container_runtime.value
        fix = f"set it to pyxis or none, or {_OTHER_EXECUTOR}"
        yield error(f"nemo-run knows no {runtime}", where=f"container_runtime of {where}", fix=fix)
    if not _PLAIN.fullmatch(run.at):
        fix = "choose a job_dir and an --expname of letters, digits and . _ - + = @ /"
        yield error(f"nemo-run would not quote {run.at!r}", where=f"job_dir of {where}", fix=fix)
    if target.queued and not contained and RUN_DIR in run.at:
        yield _rewritten(run.at, f"job_dir of {where}")


def _about_jobs(plan: Plan, cluster: ClusterConfig, settings: Settings) -> Iterator[Finding]:
    target, name = settings.target, settings.name
    if target.queued:
        yield from _about_edges(plan)
        by_torchrun = cluster.rank_launcher is RankLauncher.TORCHRUN
        if by_torchrun and any(job.command.launch is Launch.PER_GPU for job in plan.jobs):
            what = "nemo-run's slurm executor starts one task for each rank"
            yield error(what, where="rank_launcher: torchrun", fix=f"remove it, or {_OTHER_EXECUTOR}")
    for job in plan.jobs:
        if job.segment is not None and job.segment.requeue and job.segment.count > 1:
            what = f"job {job.name!r} has to queue itself again until the work is done, which it cannot by nemo-run"
            yield error(what, where="chain: requeue", fix=f"use --num_training_jobs=1, or {_OTHER_EXECUTOR}")
        if job.beside:
            members = ", ".join(member.name for member in job.beside)
            yield error(
                f"job {job.name!r} runs {members} beside its main command, and nemo-run would kill what is left as soon"
                " as one of them ends",
                fix=_OTHER_EXECUTOR,
            )
        if job.resources.num_nodes > 1 and not target.queued:
            what = (
                f"job {job.name!r} asks for {job.resources.num_nodes} nodes, and gets one by nemo-run's {name} executor"
            )
            yield error(what, where="--num_nodes", fix=f"set it to 1, or {_OTHER_EXECUTOR}")
        if job.command.num_tasks > 1 and not target.queued:
            what = f"job {job.name!r} starts {job.command.num_tasks} processes, and one by nemo-run's {name} executor"
            yield error(what, where="--num_tasks", fix=f"set it to 1, or {_OTHER_EXECUTOR}")
        if job.command.secrets is not None or not job.command.mounts:
            what = f"job {job.name!r} must not see all secrets and files, and nemo-run cannot keep them from it"
            yield error(what, fix=_OTHER_EXECUTOR)
        contained = cluster.container_runtime is not ContainerRuntime.NONE
        if target.queued and not contained and RUN_DIR in job.log_dir and not is_below(job.log_dir, RUN_DIR):
            yield _rewritten(job.log_dir, "--log_dir")
        if contained and _mentions_run_dir(job):
            what = f"job {job.name!r} names {RUN_DIR}, which is a folder of nemo-run's own in its tasks"
            yield error(what, fix="use a mounted folder")


def _rewritten(path: str, where: str) -> Finding:
    what = f"without containers nemo-run replaces {RUN_DIR} wherever it stands in its script, and {path} has it"
    return error(what, where=where, fix="rename that folder")


def _about_edges(plan: Plan) -> Iterator[Finding]:
    """An executor of nemo-run has one type of dependency, for all jobs that it waits for, and joins them by AND."""
    for stage in plan.stages:
        chain = [job.name for job in plan.jobs_of(stage.name) if job.segment is not None]
        if len(chain) > 1:
            yield error(
                f"jobs {', '.join(map(repr, chain))} are a chain, and nemo-run has no dependencies that could make one",
                fix=f"use --num_training_jobs=1, or {_OTHER_EXECUTOR}",
            )
    segments = {job.name for job in plan.jobs if job.segment is not None}
    for job in plan.jobs:
        if job.name in segments:
            continue
        gates = [edge.upstream for edge in job.edges if edge.kind is EdgeKind.ANY_SUCCEEDED]
        of_chain = set(gates) <= segments
        unfinished = [edge.upstream for edge in job.edges if edge.kind is EdgeKind.UNFINISHED]
        if unfinished or (len(gates) > 1 and not of_chain):
            yield error(
                f"job {job.name!r} does not simply start after {', '.join(gates or unfinished)} ended well, and"
                " nemo-run knows no other edges",
                fix=_OTHER_EXECUTOR,
            )


def _without_effect(plan: Plan, settings: Settings) -> Iterator[Finding]:
    resources = [job.resources for job in plan.jobs]
    names = ("partition", "qos", "time_min", "time_limit", "exclusive")
    given = [name for name in names if any(getattr(of_job, name) for of_job in resources)]
    if given:
        yield warning(f"{', '.join(given)} of jobs: without effect on nemo-run's {settings.name} executor")


def _mentions_run_dir(job: Job) -> bool:
    words = (*job.command.argv, job.command.working_dir or "", *(value for _, value in job.command.env))
    return any(_RUN_DIR_IN_TEXT.search(word) for word in words)
