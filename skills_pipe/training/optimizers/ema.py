"""An exponential moving average of the weights, kept while they are trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from skills_pipe.training.checkpoint.tensors import model_state, parameters_by_name


class WeightAverage:
    """``average <- decay * average + (1 - decay) * weights`` after each step, from the weights of the start on.

    Each rank averages its shards. The average has the type and the places of the weights, and costs their memory once
    more.

    Args:
        model: as it is trained, plain or sharded.
        decay: in [0, 1).
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self._averages: dict[str, Tensor] = {}
        self.restart()

    def restart(self) -> None:
        """Forget the past: the average is the weights as they are."""
        self._averages = {
            name: parameter.detach().clone()
            for name, parameter in parameters_by_name(self._model).items()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        weights = parameters_by_name(self._model)
        averages = [_local(average) for average in self._averages.values()]
        torch._foreach_lerp_(averages, [_local(weights[name]) for name in self._averages], 1.0 - self._decay)

    def state(self) -> dict[str, Any]:
        """The model with its average in the place of its weights, by the names of a checkpoint."""
        return model_state(self._model) | self._averages


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
