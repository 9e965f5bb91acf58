"""What the loop asks of a backend: train one step, evaluate, and hand over what a checkpoint saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from skills_pipe.training.checkpoint.state import Trainee
from skills_pipe.training.data.batches import Microbatch


class TrainingDiverged(Exception):
    """The loss or the gradients are no numbers any more; training on would destroy the weights.

    Attributes:
        step: steps done before it, as far as the one who raises it knows.
    """

    def __init__(self, reason: str, *, step: int = 0) -> None:
        self.step = step
        super().__init__(reason)


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step gave, the same on every rank.

    Attributes:
        loss: mean cross entropy over the supervised tokens of the whole global batch, before the update.
        grad_norm: global L2 norm of the gradients before clipping.
        lr: learning rate of the update.
        updated: False when no token was supervised: the weights then stay as they are.
    """

    loss: float
    grad_norm: float
    lr: float
    updated: bool


class Backend(Protocol):
    """A model spread over the ranks of a world, with its optimizer. Every method is called on every rank."""

    @property
    def trainee(self) -> Trainee:
        """The live objects that a checkpoint saves and restores; weights are fp32 outside of a step."""
        ...

    def train_step(self, microbatches: Sequence[Microbatch], *, targets: float) -> StepResult:
        """One optimizer step on a global batch.

        Args:
            microbatches: of this rank; every rank has the same number.
            targets: weight of the supervised tokens of the global batch, over all ranks; without weights their number.

        Raises:
            TrainingDiverged: loss or gradients are not finite; the weights are untouched.
        """
        ...

    def evaluate(self, microbatches: Sequence[Microbatch]) -> float:
        """Summed cross entropy over the supervised tokens of all ranks, with dropout off."""
        ...
