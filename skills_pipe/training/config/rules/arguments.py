"""Arguments of optimizers and schedules that are of another kind than is meant; classes tell it badly or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.objects import LENGTH, REST
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.resolvers import UNKNOWN
from skills_pipe.training.config.schema import TrainingConfig

_COUNTS: Final = ("T_0", "T_max", "step_size", "step_size_down", "step_size_up", "total_iters")
"""Of torch's schedules; those of transformers end as ``_STEPS``."""
_STEPS: Final = "_steps"


_NUMBERS: Final = ("lr", "momentum", "weight_decay")
"""Arguments that are one number wherever they occur; ``eps`` are two of Adafactor."""
_LISTS: Final = ("betas",)


def broken_argument_rules(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    """Every rule about arguments of classes that a canonical configuration breaks."""
    yield from _kinds(config, origins)
    yield from _shares(config, origins)


def _kinds(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    """Optimizers compare what they are given, and fail in the words of that comparison."""
    optimizer = config.policy.optimizer
    for name, value in optimizer.kwargs.items() if optimizer is not None else ():
        if (value is None and name != REST) or value == UNKNOWN:
            continue
        key = f"policy.optimizer.kwargs.{name}"
        if name in _NUMBERS and not _is_number(value):
            what = f"{key} must be a number, not {value!r}"
            yield ConfigError(what, where=origins.where(key), fix="write one, such as 1.0e-5")
        if name in _LISTS and not (isinstance(value, list | tuple) and all(map(_is_number, value))):
            what = f"{key} must be a list of numbers, not {value!r}"
            yield ConfigError(what, where=origins.where(key), fix="write one, such as [0.9, 0.98]")
        if name == REST and not isinstance(value, Mapping):
            what = f"{key} must be a mapping of AdamW's arguments, not {value!r}"
            yield ConfigError(what, where=origins.where(key), fix="write one, such as {eps: 1.0e-6}, or leave it out")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shares(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    """Numbers of steps that are written as a share of the run: the warmup would be over at the first one."""
    scheduler = config.policy.scheduler
    for part in scheduler.parts if scheduler is not None else ():
        for name, value in part.kwargs.items():
            if _is_share(name, value):
                yield ConfigError(
                    f"{name} of {part.name} is a number of steps, not {value:g}",
                    where=origins.where("policy.scheduler"),
                    fix=_in_steps(name, value, _length(config)),
                )


def _is_share(name: str, value: Any) -> bool:
    counts = name in _COUNTS or name.endswith(_STEPS)
    return counts and isinstance(value, float) and 0 < value < 1


def _length(config: TrainingConfig) -> int | None:
    """Steps of the run, where they are known without the data."""
    return config.sft.max_num_steps if config.sft.max_num_epochs is None else None


def _in_steps(name: str, share: float, length: int | None) -> str:
    if name == LENGTH:
        return "leave it out: it is that of the run"
    if length is None:
        return f"write how many steps it is: {share:g} of those that the start of the run tells"
    return f"of {length} steps that would be {max(1, round(share * length))}"
