"""The schema of the training configuration: every key with its type, its meaning and the values it allows."""

from skills_pipe.training.config.schema.checkpointing import CheckpointingConfig
from skills_pipe.training.config.schema.data import DataConfig, DatasetConfig
from skills_pipe.training.config.schema.logger import LoggerConfig
from skills_pipe.training.config.schema.policy import ObjectConfig, PolicyConfig, SchedulerConfig, TokenizerConfig
from skills_pipe.training.config.schema.training import ClusterConfig, SftConfig, TrainingConfig

__all__ = [
    "CheckpointingConfig",
    "ClusterConfig",
    "DataConfig",
    "DatasetConfig",
    "LoggerConfig",
    "ObjectConfig",
    "PolicyConfig",
    "SchedulerConfig",
    "SftConfig",
    "TokenizerConfig",
    "TrainingConfig",
]
