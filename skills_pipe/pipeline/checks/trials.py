"""Which headers sbatch is to try: of jobs that are alike to Slurm one stands for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from skills_pipe.pipeline.checks.slurm_facts import Trial
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.records.store import store_of
from skills_pipe.pipeline.scripts.sbatch import header_lines

_PER_JOB = ("--job-name=", "--output=", "--error=")
"""Lines of a header in which jobs differ that are alike to Slurm."""


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Headers to try, before anybody knows which of the jobs have to be run.

    Attributes:
        headers: job -> its ``#SBATCH`` lines.
        stands_in: job -> the one of ``headers`` that it is like.
    """

    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stands_in: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, cluster: ClusterConfig) -> Trials:
        """The headers of a plan for Slurm."""
        run = store_of(cluster).next_run(plan.expname)
        headers: dict[str, tuple[str, ...]] = {}
        stands_in: dict[str, str] = {}
        first: dict[tuple[str, ...], str] = {}
        for job in plan.jobs:
            lines = tuple(header_lines(job, plan, cluster, run))
            alike = tuple(line for line in lines if not line.split(" ", 1)[1].startswith(_PER_JOB))
            stands_in[job.name] = first.setdefault(alike, job.name)
            if stands_in[job.name] == job.name:
                headers[job.name] = lines
        return cls(headers=headers, stands_in=stands_in)

    def of_jobs(self, plan: Plan, told: Mapping[str, Trial]) -> dict[str, Trial]:
        """What was told of the jobs of ``plan``, a part of the whole one: the first of those that are alike -> that."""
        first: dict[str, str] = {}
        for job in plan.jobs:
            first.setdefault(self.stands_in[job.name], job.name)
        return {job: told[tried] for tried, job in first.items() if tried in told}
