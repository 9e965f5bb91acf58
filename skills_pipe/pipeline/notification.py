"""A plan with one more job, which waits for all others and tells a webhook how the run ended."""

from __future__ import annotations

from dataclasses import replace

from skills_pipe.errors import ClusterConfigError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.plan import Command, Edge, EdgeKind, Job, Launch, Plan, Resources, Stage
from skills_pipe.pipeline.scripts.notify import notify_text

STAGE = "notify"
_TIME_LIMIT = "0-00:10:00"


def with_notification(plan: Plan, cluster: ClusterConfig) -> Plan:
    """``plan`` with its last job, where the cluster configuration asks for it; an older last job is replaced.

    Raises:
        ClusterConfigError: nemo-run cannot wait for jobs however they end.
    """
    kept = without_notification(plan)
    notify = cluster.notify
    if notify is None or not kept.jobs:
        return kept
    if cluster.executor is ExecutorKind.NEMO_RUN:
        raise ClusterConfigError(
            "nemo-run cannot wait for jobs however they end, so nobody would be told",
            where=f"notify of cluster {cluster.name!r}",
            fix="leave it away, or use executor: slurm",
        )
    partition = cluster.cpu_partition or cluster.partition
    text = notify_text(kept, notify.on, f"ns status {plan.expname}{cluster.flag}")
    job = Job(
        name=f"{plan.expname}-{STAGE}",
        stage=STAGE,
        command=Command(argv=("bash", "-c", text), launch=Launch.BATCH, secrets=()),
        resources=Resources(partition=partition, qos=cluster.qos, time_limit=_TIME_LIMIT),
        log_dir=kept.jobs[-1].log_dir,
        edges=tuple(Edge(upstream=other.name, kind=EdgeKind.ENDED) for other in kept.jobs),
    )
    return replace(kept, stages=(*kept.stages, Stage(name=STAGE, output=None)), jobs=(*kept.jobs, job))


def without_notification(plan: Plan) -> Plan:
    """``plan`` without the job that tells how it ended."""
    return replace(
        plan,
        stages=tuple(stage for stage in plan.stages if stage.name != STAGE),
        jobs=tuple(job for job in plan.jobs if job.stage != STAGE),
    )
