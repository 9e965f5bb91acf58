"""Whether training can log in to Weights & Biases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skills_pipe.errors import ClusterConfigError
from skills_pipe.pipeline.checks.finding import Finding, error, warning
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime

if TYPE_CHECKING:
    from skills_pipe.training.config import TrainingConfig


def check_wandb(config: TrainingConfig, cluster: ClusterConfig) -> list[Finding]:
    """A trainer that cannot log in to Weights & Biases stops at once, after its wait in the queue."""
    if not config.logger.wandb_enabled or cluster.is_local:
        return []
    try:
        environment = cluster.environment()
    except ClusterConfigError:
        return []  # told by the checks of the cluster
    if environment.keys() & {"WANDB_API_KEY", "WANDB_MODE"}:
        return []
    fix = "export it, or add --disable_wandb"
    if config.logger.wandb.optional:
        return [warning("nothing is sent to Weights & Biases: WANDB_API_KEY is not set", fix=fix)]
    what = "jobs log to Weights & Biases, and WANDB_API_KEY is not set"
    # Without containers a key in the home folder may do.
    in_containers = cluster.container_runtime is not ContainerRuntime.NONE
    return [error(what, fix=fix) if in_containers else warning(what, fix=fix)]
