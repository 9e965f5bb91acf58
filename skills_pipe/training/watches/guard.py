"""The guard of steps: whether loss and gradients are fit to change the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from skills_pipe.training.backends.base import require_finite
from skills_pipe.training.config.schema.watches import LossSpikesConfig


@dataclass
class StepGuard:
    """Asked in each step, after its gradients are there and before they change anything; the same on every rank.

    A spike is a loss or a gradient norm far above the latest ones, as the skip-step optimizer of OLMo 2 (Groeneveld et
    al. 2025, arXiv:2501.00656, and its code) defines it: more than some standard deviations above the mean of a
    window. Spikes enter the window like all steps, so that a loss which stays high is soon accepted.

    Attributes:
        spikes: what a spike is; None: there are none.
        max_nonfinite: steps in a row without numbers that are passed over.
        passed_over: steps since the start of the run that changed nothing.
        nonfinite: those of them, up to now in a row, that had no numbers.
        losses, norms: of the latest steps with numbers, as many as the window has.
    """

    spikes: LossSpikesConfig | None = None
    max_nonfinite: int = 0
    passed_over: int = 0
    nonfinite: int = 0
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)

    def judge(self, loss: float, norm: float) -> str | None:
        """Why a step of this loss and gradient norm must change nothing; None when it may.

        Raises:
            TrainingDiverged: one step without numbers too many.
        """
        reason = self._without_numbers(loss, norm) or self._jump("loss", loss, self.losses)
        reason = reason or self._jump("gradient norm", norm, self.norms)
        if math.isfinite(loss) and math.isfinite(norm):
            self.nonfinite = 0
            window = self.spikes.window if self.spikes is not None else 0
            self.losses = [*self.losses, loss][-window:] if window else []
            self.norms = [*self.norms, norm][-window:] if window else []
        self.passed_over += reason is not None
        return reason

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "passed_over": self.passed_over,
            "nonfinite": self.nonfinite,
            "losses": self.losses,
            "norms": self.norms,
        }

    @classmethod
    def of(
        cls, spikes: LossSpikesConfig | None, max_nonfinite: int, state: Mapping[str, Any] | None = None
    ) -> StepGuard:
        """The guard where a checkpoint left it; a new one without a state."""
        return cls(spikes=spikes, max_nonfinite=max_nonfinite, **(state or {}))

    def _without_numbers(self, loss: float, norm: float) -> str | None:
        if math.isfinite(loss) and math.isfinite(norm):
            return None
        self.nonfinite += 1
        if self.nonfinite > self.max_nonfinite:
            require_finite(loss, norm)
        return f"the loss is {loss:.5g} and the norm of the gradients {norm:.5g}"

    def _jump(self, what: str, value: float, latest: Sequence[float]) -> str | None:
        if self.spikes is None or len(latest) < self.spikes.window // 2:
            return None
        mean, deviation = fmean(latest), stdev(latest)
        if value <= mean + self.spikes.deviations * deviation:
            return None
        return f"the {what} is {value:.4g}, and {mean:.4g} with a deviation of {deviation:.2g} in the steps before"
