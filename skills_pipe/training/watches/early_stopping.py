"""The end of a training that no longer gets better on held-out data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skills_pipe.training.config.schema.watches import EarlyStoppingConfig


@dataclass
class EarlyStopping:
    """Follows a metric that has to fall, validation by validation.

    Attributes:
        settings: None: the run is never ended.
        best: value that the next ones are compared with: the last that was lower by more than ``min_delta``.
        best_step: at which it was.
        waited: validations since then.
        lowest: of all values so far.
        lowest_step: at which it was.
    """

    settings: EarlyStoppingConfig | None = None
    best: float | None = None
    best_step: int = 0
    waited: int = 0
    lowest: float | None = None
    lowest_step: int = 0

    def observe(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take in the metrics of a validation after ``step``, by their prefixed names; nothing without the metric."""
        if self.settings is None or self.settings.metric not in metrics:
            return
        value = metrics[self.settings.metric]
        # A value that is no number is neither lower nor better.
        if value < (math.inf if self.lowest is None else self.lowest):
            self.lowest, self.lowest_step = value, step
        before = math.inf if self.best is None else self.best - self.settings.min_delta
        if value < before:
            self.best, self.best_step, self.waited = value, step, 0
        else:
            self.waited += 1

    @property
    def sentence(self) -> str | None:
        """Why the training is over; None while it goes on."""
        if self.settings is None or self.waited < self.settings.patience:
            return None
        metric = self.settings.metric
        times = f"in {self.waited} validation{'s' if self.waited > 1 else ''}"
        if self.best is None or self.lowest is None:
            return f"{metric} has not fallen {times}: it was never a number"
        if self.lowest_step == self.best_step:
            return f"{metric} has not fallen {times}: its best is {self.best:.4f} of step {self.best_step}"
        fallen = f"has fallen by no more than {self.settings.min_delta:g} (min_delta) {times}"
        return (
            f"{metric} {fallen}, from {self.best:.4f} of step {self.best_step}: "
            f"its best is {self.lowest:.4f} of step {self.lowest_step}"
        )

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        metric = self.settings.metric if self.settings is not None else None
        followed = {"best": self.best, "best_step": self.best_step, "waited": self.waited}
        return {"metric": metric, **followed, "lowest": self.lowest, "lowest_step": self.lowest_step}

    @classmethod
    def of(cls, settings: EarlyStoppingConfig | None, state: Mapping[str, Any] | None = None) -> EarlyStopping:
        """The watch where a checkpoint left it; a new one without a state, or after one of another metric."""
        if settings is None or state is None or state["metric"] != settings.metric:
            return cls(settings=settings)
        followed = {name: state[name] for name in ("best", "best_step", "waited")}
        # Checkpoints of before knew the one value only.
        lowest, lowest_step = state.get("lowest", state["best"]), state.get("lowest_step", state["best_step"])
        return cls(settings=settings, **followed, lowest=lowest, lowest_step=lowest_step)
