"""The numbers that a training run has logged, read back from its ``metrics.jsonl``.

Names follow NeMo-RL: ``train/loss``, ``train/lr``, ``train/tokens_per_second``, ``validation/val_loss``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRAIN_LOSS = "train/loss"
"""The metric that every training step logs."""
VALIDATION_LOSS = "validation/val_loss"
TOKENS_PER_SECOND = "train/tokens_per_second"
NODES = "ray/"
"""What the names of all that is measured of nodes begin with."""
NODES_TIME = f"{NODES}ray_step"
"""Their own axis: whole seconds since the run began."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Values of one metric: ``steps[i]`` had ``values[i]``."""

    steps: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, name: str, lines: Iterable[Mapping[str, Any]]) -> Curve:
        """The curve of a metric in the lines of a metrics file; empty when it was never logged."""
        pairs = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        return cls(steps=tuple(step for step, _ in pairs), values=tuple(value for _, value in pairs))

    @property
    def points(self) -> list[tuple[float, float]]:
        """(step, value) pairs."""
        return list(zip(self.steps, self.values, strict=True))

    def until(self, step: int) -> Curve:
        """The part up to a step, with it."""
        count = sum(1 for other in self.steps if other <= step)
        return Curve(steps=self.steps[:count], values=self.values[:count])

    def smoothed(self) -> Curve:
        """Mean over a window around each point, a twentieth of the run wide.

        The window is symmetric and shrinks towards both ends, so the curve is not shifted to the right as a running
        average is, and starts and ends at the true values.
        """
        count = len(self.values)
        reach = count // 40
        sums = [0.0, *itertools.accumulate(self.values)]
        values = []
        for index in range(count):
            side = min(reach, index, count - 1 - index)
            values.append((sums[index + side + 1] - sums[index - side]) / (2 * side + 1))
        return Curve(steps=self.steps, values=tuple(values))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl`` in their order; a line cut short by a kill is left out."""
    return parse_metrics(path.read_text(encoding="utf-8"))


def parse_metrics(text: str) -> list[dict[str, Any]]:
    """The same from its text."""
    lines = []
    for row in text.splitlines():
        try:
            value = json.loads(row)
        except ValueError:
            continue
        if isinstance(value, dict) and "step" in value:
            lines.append(value)
    return lines
