"""The plan of an earlier run, made ready to be submitted again."""

from __future__ import annotations

from dataclasses import replace

from skills_pipe.pipeline.plan import EdgeKind, Job, Plan, chain, gate


def with_segments(plan: Plan, count: int) -> Plan:
    """``plan`` with ``count`` jobs in each of its chains; what waits for a chain waits for all of its jobs."""
    made: dict[str, tuple[Job, ...]] = {}
    jobs: list[Job] = []
    for job in plan.jobs:
        if job.segment is None:
            jobs.append(_rewired(job, plan, made))
        elif job.stage not in made:
            template = replace(job, name=job.name.removesuffix(f"-{job.segment.index}"), segment=None)
            made[job.stage] = chain(_rewired(template, plan, made), count=count, requeue=job.segment.requeue)
            jobs += made[job.stage]
    return replace(plan, jobs=tuple(jobs))


def _rewired(job: Job, plan: Plan, made: dict[str, tuple[Job, ...]]) -> Job:
    """A job whose any-of edges lead to the jobs that the chains have now."""
    kept = tuple(edge for edge in job.edges if edge.kind is not EdgeKind.ANY_SUCCEEDED)
    stages = [plan.job(edge.upstream).stage for edge in job.edges if edge.kind is EdgeKind.ANY_SUCCEEDED]
    gates = tuple(edge for stage in dict.fromkeys(stages) for edge in gate(made[stage]))
    return replace(job, edges=kept + gates)
