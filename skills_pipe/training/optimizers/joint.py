"""Several optimizers that look like one, each with parameters of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer


class JointOptimizer(Optimizer):
    """Steps ``parts`` one after the other; schedules and checkpoints see one optimizer with all of their groups.

    Args:
        parts: optimizers over different parameters, in the order of their groups.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self._parts = list(parts)
        super().__init__([group for part in parts for group in part.param_groups], _shared_defaults(self._parts))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of each part."""
        start = 0
        for part in self._parts:
            # Loading a state puts new groups and a new state in the place of the old ones.
            count = len(part.param_groups)
            part.param_groups, part.state = self.param_groups[start : start + count], self.state
            start += count
            part.step()


def _shared_defaults(parts: Sequence[Optimizer]) -> dict[str, Any]:
    """Of the arguments that all parts know those of the first: schedules of transformers ask for its learning rate.

    What only some of them know, such as a momentum, a schedule would look for in the groups of all.
    """
    return {
        name: value
        for part in parts[:1]
        for name, value in part.defaults.items()
        if all(name in other.defaults for other in parts)
    }
