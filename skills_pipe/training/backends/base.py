"""What the loop asks of a backend: train one step, evaluate, and hand over what a checkpoint saves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from skills_pipe.training.checkpoint.state import Trainee
from skills_pipe.training.data.batches import Microbatch
from skills_pipe.training.models.generate import Generation, Prompt


class TrainingDiverged(Exception):
    """The loss or the gradients are no numbers any more; training on would destroy the weights.

    Attributes:
        step: steps done before it, as far as the one who raises it knows.
    """

    def __init__(self, reason: str, *, step: int = 0) -> None:
        self.step = step
        super().__init__(reason)


Judge = Callable[[float, float], str | None]
"""Told the loss and the gradient norm of a step before it changes anything: None, or why it must not. It may raise."""


def require_finite(loss: float, norm: float) -> None:
    """The judge that lets every step through that has numbers.

    Raises:
        TrainingDiverged: it has none.
    """
    if not math.isfinite(loss) or not math.isfinite(norm):
        raise TrainingDiverged(f"the loss is {loss:.5g} and the norm of the gradients {norm:.5g}")


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step gave, the same on every rank.

    Attributes:
        loss: mean cross entropy over the supervised tokens of the whole global batch, before the update; NaN of none.
        grad_norm: global L2 norm of the gradients before clipping.
        lr: learning rate of the update.
        updated: False when no token was supervised or the judge was against it: the weights then stay as they are.
        passed_over: why the judge was against it.
        metrics: what else there is to tell of it, by name.
    """

    loss: float
    grad_norm: float
    lr: float
    updated: bool
    passed_over: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


class Backend(Protocol):
    """A model spread over the ranks of a world, with its optimizer. Every method is called on every rank."""

    @property
    def trainee(self) -> Trainee:
        """The live objects that a checkpoint saves and restores; weights are fp32 outside of a step."""
        ...

    @property
    def kernels(self) -> Mapping[str, str]:
        """What computes ``attention`` and the ``loss``, by its name; the same on every rank."""
        ...

    def train_step(
        self, microbatches: Sequence[Microbatch], *, targets: float, judge: Judge = require_finite
    ) -> StepResult:
        """One optimizer step on a global batch.

        Args:
            microbatches: of this rank; every rank has the same number.
            targets: weight of the supervised tokens of the global batch, over all ranks; without weights their number.
            judge: gives the same answer on every rank.

        Raises:
            TrainingDiverged: by the judge; the weights are untouched.
        """
        ...

    def evaluate(self, microbatches: Sequence[Microbatch]) -> float:
        """Summed cross entropy over the supervised tokens of all ranks, with dropout off."""
        ...

    def generate(self, prompts: Sequence[Prompt], how: Generation) -> list[list[int]]:
        """The tokens that the model writes after each prompt, all of them on every rank.

        Raises:
            ConfigError: it cannot with this layout of ranks; told on every rank, before any of them waits.
        """
        ...
