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
        best: lowest value so far.
        best_step: at which it was.
        waited: validations since then.
    """

    settings: EarlyStoppingConfig | None = None
    best: float | None = None
    best_step: int = 0
    waited: int = 0

    def observe(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take in the metrics of a validation after ``step``, by their prefixed names; nothing without the metric."""
        if self.settings is None or self.settings.metric not in metrics:
            return
        value = metrics[self.settings.metric]
        # A value that is no number is never better.
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
        return f"{self.settings.metric} has not fallen in {self.waited} validations: " + (
            "it was never a number" if self.best is None else f"its best is {self.best:.4f} of step {self.best_step}"
        )

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        metric = self.settings.metric if self.settings is not None else None
        return {"metric": metric, "best": self.best, "best_step": self.best_step, "waited": self.waited}

    @classmethod
    def of(cls, settings: EarlyStoppingConfig | None, state: Mapping[str, Any] | None = None) -> EarlyStopping:
        """The watch where a checkpoint left it; a new one without a state, or after one of another metric."""
        if settings is None or state is None or state["metric"] != settings.metric:
            return cls(settings=settings)
        return cls(settings=settings, best=state["best"], best_step=state["best_step"], waited=state["waited"])
