"""How many steps a run has, and after which of them it saves and validates; steps are counted from 1."""

from __future__ import annotations

import re
from typing import Final

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.schema import CheckpointingConfig, SftConfig, TrainingConfig

_DURATION: Final = re.compile(r"(\d+):(\d{1,2}):(\d{1,2}):(\d{1,2})")
_RANGE: Final = re.compile(r"(\d+):(\d+)")


def steps_per_epoch(config: TrainingConfig, num_samples: int) -> int:
    """Optimizer steps in one pass over the data; what is left over at the end of a pass is not trained on.

    Raises:
        ConfigError: the data is smaller than one global batch.
    """
    steps = num_samples // config.policy.train_global_batch_size
    if steps == 0:
        raise ConfigError(
            f"the training data has {num_samples} samples, fewer than one global batch",
            where=f"policy.train_global_batch_size={config.policy.train_global_batch_size}",
            fix="lower it, or give more data",
        )
    return steps


def total_steps(config: TrainingConfig, num_samples: int) -> int:
    """Optimizer steps of the whole run: ``min(max_num_epochs * steps_per_epoch, max_num_steps)``."""
    per_epoch = steps_per_epoch(config, num_samples)
    bounds = []
    if config.sft.max_num_epochs is not None:
        bounds.append(config.sft.max_num_epochs * per_epoch)
    if config.sft.max_num_steps is not None:
        bounds.append(config.sft.max_num_steps)
    return min(bounds)


def is_save_step(checkpointing: CheckpointingConfig, step: int, total: int) -> bool:
    """Whether a checkpoint is saved after ``step``; the last step is always saved."""
    if not checkpointing.enabled:
        return False
    periods = (checkpointing.save_period, checkpointing.ft_save_period)
    return step == total or any(period and step % period == 0 for period in periods)


def is_validation_step(sft: SftConfig, step: int, total: int) -> bool:
    """Whether the model is validated after ``step``."""
    periodic = sft.val_period > 0 and step % sft.val_period == 0
    return periodic or (bool(sft.val_at_end) and step == total)


def seconds(duration: str) -> int:
    """Seconds of a duration written as ``DD:HH:MM:SS``.

    Raises:
        ConfigError: it is not written so.
    """
    match = _DURATION.fullmatch(duration.strip())
    if not match:
        raise ConfigError(
            f"{duration!r} is no duration",
            where="checkpointing.checkpoint_must_save_by",
            fix='write "DD:HH:MM:SS" in quotes, such as "00:03:45:00"',
        )
    days, hours, minutes, secs = (int(part) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + secs


def step_range(text: str) -> range:
    """The steps of a range written as ``FIRST:END``, counted from 1, without ``END``.

    Raises:
        ConfigError: it is not written so, or holds no step.
    """
    match = _RANGE.fullmatch(text.strip())
    steps = range(*(int(part) for part in match.groups())) if match else range(0)
    if not steps or steps.start < 1:
        raise ConfigError(
            f"{text!r} is no range of steps",
            where="logger.profile_step_range",
            fix='write "FIRST:END" in quotes, such as "3:5"',
        )
    return steps
