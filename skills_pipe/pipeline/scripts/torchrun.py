"""Ranks of a training job by torchrun: one task of Slurm on each node, which starts those of its node."""

from __future__ import annotations

from dataclasses import replace

from skills_pipe.pipeline.cluster.config import ClusterConfig, RankLauncher
from skills_pipe.pipeline.plan import Job, Launch
from skills_pipe.pipeline.scripts.render import torchrun_target

NODE = "skills_pipe.training.node"
"""The program of such a task."""


def with_launcher(job: Job, cluster: ClusterConfig) -> Job:
    """The job with its ranks started as the cluster wants it."""
    command = job.command
    if cluster.rank_launcher is not RankLauncher.TORCHRUN or command.launch is not Launch.PER_GPU:
        return job
    ranks = max(1, job.resources.num_gpus)
    argv = ("python", "-m", NODE, f"--nproc-per-node={ranks}", *torchrun_target(command))
    return replace(job, command=replace(command, argv=argv, launch=Launch.PER_NODE, num_tasks=1))
