"""The layers of a model."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The layers between embeddings and output, in their order."""
    base = model.base_model
    # GPT-2 has its own name for them.
    layers: nn.ModuleList = base.h if hasattr(base, "h") else base.layers
    return layers
