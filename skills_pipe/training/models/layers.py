"""The layers of a model."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The layers between embeddings and output, in their order."""
    base = model.base_model
    # GPT-2 has its own name for them.
    layers: nn.ModuleList = base.h if hasattr(base, "h") else base.layers
    return layers


def windows_of(config: PreTrainedConfig) -> tuple[int | None, ...]:
    """Of each layer how many tokens a token sees, itself among them; None: all before it."""
    window = getattr(config, "sliding_window", None)
    layers = int(getattr(config, "num_hidden_layers", 0))
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return (window,) * layers
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
