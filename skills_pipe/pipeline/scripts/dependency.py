"""Edges of a job -> the dependency that sbatch is given on its command line."""

from __future__ import annotations

from collections.abc import Mapping

from skills_pipe.errors import PlanError
from skills_pipe.pipeline.plan import EdgeKind, Job


def dependency(job: Job, ids: Mapping[str, str], after: tuple[str, ...] = ()) -> str | None:
    """Value of ``sbatch --dependency`` for a job, None when it waits for nothing.

    Args:
        ids: job -> id, or a name that stands for it.
        after: ids of jobs of earlier runs. They hold for every job that waits for no finished job of this plan, and
            for every segment: one whose predecessor was cancelled would start otherwise.

    Raises:
        PlanError: an any-of edge stands beside others. sbatch would silently make an any-of of all of them.
    """
    kinds = {kind: [ids[edge.upstream] for edge in job.edges if edge.kind is kind] for kind in EdgeKind}
    alternatives = kinds[EdgeKind.ANY_SUCCEEDED]
    external = () if kinds[EdgeKind.SUCCEEDED] or kinds[EdgeKind.ENDED] or alternatives else after
    if alternatives:
        if kinds[EdgeKind.SUCCEEDED] or kinds[EdgeKind.UNFINISHED] or kinds[EdgeKind.ENDED]:
            raise PlanError(f"job {job.name!r} mixes an any-of edge with others", fix="put a gate job between them")
        return "?".join(f"afterok:{job_id}" for job_id in alternatives)
    parts = [f"afterok:{job_id}" for job_id in (*external, *kinds[EdgeKind.SUCCEEDED])]
    parts += [f"afternotok:{job_id}" for job_id in kinds[EdgeKind.UNFINISHED]]
    parts += [f"afterany:{job_id}" for job_id in kinds[EdgeKind.ENDED]]
    return ",".join(parts) or None
