"""An optimizer over parameters that lie on several device meshes, as where ranks share experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer


class MeshOptimizer(Optimizer):
    """Steps ``inner`` for the parameters of each mesh in turn: one call of a kernel is for tensors of one.

    Groups are those that ``inner`` has on one mesh: schedules and checkpoints, which keep a value for each group, are
    the same on every layout of ranks.

    Args:
        inner: over all parameters; it must not be used by itself afterwards.
    """

    def __init__(self, inner: Optimizer) -> None:
        self._inner = inner
        super().__init__(inner.param_groups, inner.defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of every parameter."""
        # What an optimizer writes into its groups, as a count of steps, must not be written once for each mesh.
        before = [{key: value for key, value in group.items() if key != "params"} for group in self.param_groups]
        self._inner.state = self.state
        for mesh in meshes_of([parameter for group in self.param_groups for parameter in group["params"]]):
            parts = []
            for group, settings in zip(self.param_groups, before, strict=True):
                own = [parameter for parameter in group["params"] if _mesh(parameter) == mesh]
                if own:
                    parts.append((group, {**settings, "params": own}))
            self._inner.param_groups = [part for _, part in parts]
            self._inner.step()
            for group, part in parts:
                group.update({key: value for key, value in part.items() if key != "params"})


def meshes_of(parameters: Sequence[Tensor]) -> list[object]:
    """The different meshes of parameters, None for those that are not spread; in the order of their first ones."""
    return list(dict.fromkeys(map(_mesh, parameters)))


def _mesh(parameter: Tensor) -> object:
    return parameter.device_mesh if isinstance(parameter, DTensor) else None
