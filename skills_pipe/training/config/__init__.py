"""The training configuration: a typed tree from YAML files and Hydra-style overrides, without torch.

    config = load_config(Path("sft.yaml"), ["policy.model_name=/models/base", "++sft.max_num_steps=100"])
    config.policy.train_global_batch_size

The launcher checks the same overrides with :func:`check_overrides` before it submits anything.
"""

from skills_pipe.training.config.dump import to_tree, to_yaml
from skills_pipe.training.config.load import ConfigErrors, ConfigWarning, check_overrides, load_config
from skills_pipe.training.config.rules.megatron import typed_for_megatron
from skills_pipe.training.config.rules.unsupported import unsupported, without_effect
from skills_pipe.training.config.schema import (
    CheckpointingConfig,
    ClusterConfig,
    DataConfig,
    DatasetConfig,
    LoggerConfig,
    ObjectConfig,
    PolicyConfig,
    SchedulerConfig,
    SftConfig,
    TokenizerConfig,
    TrainingConfig,
)

__all__ = [
    "CheckpointingConfig",
    "ClusterConfig",
    "ConfigErrors",
    "ConfigWarning",
    "DataConfig",
    "DatasetConfig",
    "LoggerConfig",
    "ObjectConfig",
    "PolicyConfig",
    "SchedulerConfig",
    "SftConfig",
    "TokenizerConfig",
    "TrainingConfig",
    "check_overrides",
    "load_config",
    "to_tree",
    "to_yaml",
    "typed_for_megatron",
    "unsupported",
    "without_effect",
]
