"""Arguments of schedules that their classes take, and train with otherwise than is meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.objects import LENGTH
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.schema import TrainingConfig

_COUNTS: Final = ("T_0", "T_max", "step_size", "step_size_down", "step_size_up", "total_iters")
"""Of torch's schedules; those of transformers end as ``_STEPS``."""
_STEPS: Final = "_steps"


def broken_argument_rules(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
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
