"""The schedule of learning rates of a run that goes on.

A schedule that is the same as then gets its state back. One that is configured otherwise, or spans a run of another
length, is brought to the step of the checkpoint instead, and goes on by its own formula.
"""

from __future__ import annotations

import math
import warnings as python_warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from skills_pipe.training.checkpoint.state import Trainee, TrainingInfo


def move_to_step(trainee: Trainee, saved: Mapping[str, Any] | None, info: TrainingInfo) -> None:
    """Bring a fresh schedule, and with it a fresh optimizer's rates, to the step of a checkpoint.

    Args:
        trainee: of the run that goes on.
        saved: state of the checkpoint's schedule; None where it had none.
        info: of the checkpoint.
    """
    scheduler = trainee.scheduler
    if scheduler is None:
        return
    # Steps that were passed over did not count for the schedule.
    done = info.total_steps if saved is None else saved.get("last_epoch", info.total_steps)
    with python_warnings.catch_warnings():
        python_warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step\\(\\)` before")
        for _ in range(done):
            scheduler.step()


def other_schedule(trainee: Trainee, saved: Mapping[str, Any] | None, info: TrainingInfo) -> str | None:
    """What to tell where the moved schedule is not in the state of the checkpoint's at this step; else None.

    The same configuration may make another schedule: many span a run, whose length may be another one now.
    """
    if trainee.scheduler is None or saved is None:
        return None
    state = trainee.scheduler.state_dict()
    differs = [key for key in state if key in saved and not _is_same(state[key], saved[key])]
    if not differs:
        return None
    told = "policy.scheduler makes another schedule than then, as of a run of another length"
    if "_last_lr" in differs:
        return f"{told}: {_jump(state['_last_lr'], saved['_last_lr'], info)}"
    plain = [key for key in differs if _number(state[key]) is not None]
    return f"{told}{': ' if plain else ''}{', '.join(f'{key} {saved[key]} -> {state[key]}' for key in plain)}"


def other_rate(
    trainee: Trainee, saved: Mapping[str, Any] | None, info: TrainingInfo, *, changed: Sequence[str], constant: Any
) -> str | None:
    """What to tell where the next step has another rate than the checkpoint's settings gave it; else None.

    Args:
        trainee: moved to the step of the checkpoint, its optimizer without the state of then.
        saved: state of the checkpoint's schedule; None where it had none.
        info: of the checkpoint.
        changed: keys of what is configured otherwise.
        constant: rate of the checkpoint's optimizer, for where no schedule changed it; no number where it is unknown.
    """
    then = saved["_last_lr"] if saved is not None and "_last_lr" in saved else [constant]
    now = [group["lr"] for group in trainee.optimizer.param_groups]
    if not all(isinstance(rate, (int, float, torch.Tensor)) for rate in (*now, *then)):
        return None
    jump = _jump(now, then, info)
    keys = " and ".join(f"policy.{key}" for key in changed)
    return f"{keys} changed: {jump}" if jump is not None else None


def _jump(now: Sequence[Any], then: Sequence[Any], info: TrainingInfo) -> str | None:
    """Of the first group whose rates differ; other layouts may have another number of groups."""
    for rate, before in zip(now, then, strict=False):
        if not _is_same(rate, before):
            return (
                f"from step {info.total_steps + 1} on the learning rate is {float(rate):.3g}, where it was to be "
                f"{float(before):.3g}"
            )
    return None


def restore(trainee: Trainee, saved: Mapping[str, Any] | None) -> None:
    """The state of the schedule; with None it stays as :func:`move_to_step` has made it."""
    scheduler = trainee.scheduler
    if scheduler is None:
        return
    if saved is not None:
        scheduler.load_state_dict(dict(saved))
    # An optimizer that starts fresh has the first rate of the schedule, which goes on from the one before.
    for group, rate in zip(trainee.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = rate


def _is_same(now: Any, then: Any) -> bool:
    """Whether two values of a state are the same, but for rounding."""
    if isinstance(now, list) and isinstance(then, list):
        # Other layouts may have another number of groups.
        return all(map(_is_same, now, then))
    if isinstance(now, dict) and isinstance(then, dict):
        return all(_is_same(now[key], then[key]) for key in now.keys() & then.keys())
    one, other = _number(now), _number(then)
    if one is not None and other is not None:
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-15) or (math.isnan(one) and math.isnan(other))
    if isinstance(now, torch.Tensor) and isinstance(then, torch.Tensor):
        return now.shape == then.shape and torch.allclose(now, then, rtol=1e-6, equal_nan=True)
    return type(now) is type(then) and bool(now == then)


def _number(value: Any) -> float | None:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return float(value)
    return float(value) if isinstance(value, (int, float)) else None
