"""The learning rates of a run before it begins: its schedule, stepped to the end without training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.schema.policy import ObjectConfig, SchedulerConfig
from skills_pipe.training.optimizers.build import build_optimizer, build_scheduler

_LONGEST: Final = 50_000
"""Steps that are rehearsed of a longer run: about half a second."""


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Learning rates of the groups of an optimizer, which are two with Muon and one otherwise.

    Attributes:
        own: those of the optimizer itself, which a schedule starts from.
        rates: at each step of the run, and after the last: ``[steps + 1][groups]``; None where they are constant.
        whole: whether ``rates`` reach to the end of the run.
    """

    own: tuple[float, ...]
    rates: tuple[tuple[float, ...], ...] | None
    whole: bool = True


def rehearse(optimizer: ObjectConfig, scheduler: SchedulerConfig | None, *, total_steps: int) -> Rehearsal:
    """Build what the configuration names, over two weights, and take the schedule through the run.

    Raises:
        ConfigError: a class cannot be used, or the schedule fails at some step of the run.
    """
    # A matrix and a vector: Muon takes the one, AdamW the other.
    stepped = build_optimizer([torch.nn.Parameter(torch.zeros(shape)) for shape in ((1, 1), (1,))], optimizer)
    own = _rates(stepped)
    schedule = build_scheduler(stepped, scheduler, total_steps=total_steps)
    if schedule is None or scheduler is None:
        return Rehearsal(own=own, rates=None)
    rates = [_rates(stepped)]
    with warnings.catch_warnings():
        # The optimizer does not step, of which torch warns.
        warnings.simplefilter("ignore")
        for done in range(1, min(total_steps, _LONGEST) + 1):
            try:
                schedule.step()
            except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
                raise _fails(scheduler, error, done, total_steps) from error
            rates.append(_rates(stepped))
    return Rehearsal(own=own, rates=tuple(rates), whole=total_steps <= _LONGEST)


def rate_of(group: Mapping[str, Any]) -> float:
    """Learning rate of a group of an optimizer; no number where the optimizer finds it itself."""
    return math.nan if group["lr"] is None else float(group["lr"])


def _rates(optimizer: torch.optim.Optimizer) -> tuple[float, ...]:
    return tuple(rate_of(group) for group in optimizer.param_groups)


def _fails(scheduler: SchedulerConfig, error: Exception, done: int, total_steps: int) -> ConfigError:
    parts = (
        f"{part.name.rpartition('.')[2]}({', '.join(f'{name}={value!r}' for name, value in part.kwargs.items())})"
        for part in scheduler.parts
    )
    return ConfigError(
        f"{' and then '.join(parts)} fails after step {done} of {total_steps}: {error or type(error).__name__}",
        where="policy.scheduler",
        fix="change its kwargs",
    )
