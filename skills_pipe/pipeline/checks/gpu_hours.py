"""What a plan may cost at most."""

from __future__ import annotations

from collections.abc import Iterable

from skills_pipe.pipeline.cluster.slurm_time import parse_time
from skills_pipe.pipeline.plan import Job


def most_gpu_hours(jobs: Iterable[Job]) -> float | None:
    """GPU-hours if every job runs to its time limit; None if one with GPUs has none.

    A chain that finishes early costs less: its later segments never start.
    """
    hours = 0.0
    for job in jobs:
        gpus = job.resources.num_nodes * job.resources.num_gpus
        if gpus and job.resources.time_limit is None:
            return None
        if gpus and job.resources.time_limit:
            hours += gpus * parse_time(job.resources.time_limit) / 3600
    return hours


def describe(jobs: Iterable[Job]) -> str | None:
    """One line for people; None if no job has a GPU."""
    with_gpus = [job for job in jobs if job.resources.num_gpus]
    if not with_gpus:
        return None
    hours = most_gpu_hours(with_gpus)
    count = f"{len(with_gpus)} job{'s' if len(with_gpus) > 1 else ''} with GPUs"
    if hours is None:
        return f"{count}, for as long as the partition allows"
    return f"at most {_rounded(hours)} GPU-hours in {count}"


def _rounded(hours: float) -> str:
    """``3,072``, ``10.7``, ``0.07``: as many digits as a person wants to read."""
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}" if hours >= 1 else f"{hours:.2f}"
