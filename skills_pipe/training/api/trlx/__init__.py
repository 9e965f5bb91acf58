"""Fine-tuning in the names of trlX, over the engine that jobs run.

::

    from skills_pipe.training.api import trlx
    from skills_pipe.training.api.trlx import TRLConfig

    config = TRLConfig.load_yaml("configs/nemo_sft_config.yml")
    trainer = trlx.train(samples=["a text", "another"], config=config)

Reward functions and rewards belong to trlX's other methods, which are not here.
"""

from skills_pipe.training.api.trlx.configs import (
    ModelConfig,
    OptimizerConfig,
    SchedulerConfig,
    SFTConfig,
    TokenizerConfig,
    TrainConfig,
    TRLConfig,
    default_sft_config,
)
from skills_pipe.training.api.trlx.nemo_sft_trainer import NeMoSFTTrainer
from skills_pipe.training.api.trlx.registry import get_trainer, register_trainer
from skills_pipe.training.api.trlx.train import train

__all__ = [
    "ModelConfig",
    "NeMoSFTTrainer",
    "OptimizerConfig",
    "SFTConfig",
    "SchedulerConfig",
    "TRLConfig",
    "TokenizerConfig",
    "TrainConfig",
    "default_sft_config",
    "get_trainer",
    "register_trainer",
    "train",
]
