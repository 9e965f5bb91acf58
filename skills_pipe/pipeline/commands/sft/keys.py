"""The keys of a trainer's command, and the configuration that they make."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from skills_pipe.errors import ConfigError
from skills_pipe.pipeline.plan import Command

if TYPE_CHECKING:
    from skills_pipe.training.config import TrainingConfig

Keys = tuple[str, ...]

FLAGS: Final = {
    "policy.model_name": "--hf_model",
    "policy.megatron_cfg.enabled": "--backend",
    "policy.dtensor_cfg.enabled": "--backend",
    "checkpointing.checkpoint_dir": "--output_dir",
    "cluster.gpus_per_node": "--num_gpus",
    "cluster.num_nodes": "--num_nodes",
    "data.train_data_path": "--training_data",
    "data.val_data_path": "--validation_data",
    "logger.log_dir": "--log_dir",
    "logger.wandb.project": "--wandb_project",
}
"""Keys that the launcher sets, and the flags that they come from."""


def keys_of(command: Command) -> Keys:
    """The words of a trainer's command that set keys; the user's come last, and win."""
    return tuple(word for word in command.argv if word.startswith(("+", "~")))


@lru_cache(maxsize=1)
def read_keys(keys: Keys) -> tuple[TrainingConfig | None, tuple[ConfigError, ...]]:
    """The configuration that keys make, or what is wrong with them. The plan asks for it, and every check."""
    from skills_pipe.training.config import ConfigErrors, load_config

    try:
        return load_config(None, keys), ()
    except ConfigErrors as problems:
        return None, problems.problems
    except ConfigError as problem:
        return None, (problem,)
