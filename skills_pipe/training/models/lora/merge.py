"""A model in memory with its adapters merged into its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from skills_pipe.training.models.lora.apply import adapted_modules
from skills_pipe.training.models.lora.linear import LoraLinear


@torch.no_grad()
def merged_weight(layer: LoraLinear) -> Tensor:
    """``W + scale * B A`` in float32 ``[out, in]``, with DoRA its rows in the lengths that were trained."""
    weight = torch.addmm(
        layer.weight.float(), layer.lora_B.weight.float() * layer.spec.scale, layer.lora_A.weight.float()
    )
    if layer.lora_magnitude_vector is not None:
        weight *= layer.lora_magnitude_vector(torch.linalg.vector_norm(weight, dim=1))[:, None]
    return weight


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Inside the block ``model`` has plain linear layers of the same function; after it, its adapters again."""
    adapters = adapted_modules(model)
    try:
        for name, layer in adapters.items():
            _place(model, name, _plain(layer))
        yield
    finally:
        for name, layer in adapters.items():
            _place(model, name, layer)


def _plain(layer: LoraLinear) -> nn.Linear:
    made = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    # In the type of the base, which the other weights have too.
    made.weight = nn.Parameter(merged_weight(layer).to(layer.weight.dtype), requires_grad=False)
    made.bias = layer.bias
    return made.train(layer.training)


def _place(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
