"""What an optimizer keeps of each weight that is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from skills_pipe.training.config.adapters import adapter_spec
from skills_pipe.training.config.estimate.activations import FLOAT
from skills_pipe.training.config.estimate.adapted import adapter_matrices, adapter_parameters
from skills_pipe.training.config.estimate.shape import ModelShape
from skills_pipe.training.config.schema import PolicyConfig

_MOMENTS: Final[Mapping[str, int]] = {
    "AdamW": 2,
    "Adam": 2,
    "Adamax": 2,
    "NAdam": 2,
    "RAdam": 2,
    "Adagrad": 1,
    "RMSprop": 1,
    "Lion": 1,
}
"""Values in fp32, by the last name of the class."""

_SCALED: Final[Mapping[str, float]] = {
    "AdamW8bit": 2 * (1 + FLOAT / 256),
    "Adam8bit": 2 * (1 + FLOAT / 256),
    "AdamWFp8": 2 * (1 + FLOAT / 256),
    "AdamFp8": 2 * (1 + FLOAT / 256),
    "AdamW4bit": 2 * (1 / 2 + FLOAT / 128),
    "Adam4bit": 2 * (1 / 2 + FLOAT / 128),
}
"""Bytes, where a block of values shares a scale in fp32; small tensors, which have none, are not looked at.
Source: torchao's ``optim``, whose blocks have 256 values, and 128 in 4 bit; bitsandbytes has the same in 8 bit."""


def state_bytes(shape: ModelShape, policy: PolicyConfig) -> float | None:
    """Bytes for each weight that is trained, on average; None for an optimizer that is not known here."""
    if policy.optimizer is None:
        return None
    name, kwargs = policy.optimizer.name.rpartition(".")[2], policy.optimizer.kwargs
    if name == "SGD":
        return FLOAT if kwargs.get("momentum") else 0
    if name == "Muon":
        return FLOAT * (2 - _share_of_matrices(shape, policy))
    moments = _MOMENTS.get(name)
    return _SCALED.get(name) if moments is None else FLOAT * moments


def _share_of_matrices(shape: ModelShape, policy: PolicyConfig) -> float:
    """Of the trained weights those in matrices inside of the layers: Muon keeps one value, AdamW two elsewhere."""
    if adapter_spec(policy) is not None:
        return (adapter_matrices(shape, policy) or 0) / (adapter_parameters(shape, policy) or 1)
    if shape.experts is None:
        return shape.matrices / shape.parameters
    # Experts are stacks of matrices, which AdamW gets.
    routers = len(shape.mixtures) * shape.experts.count * shape.hidden
    return (routers + sum(inputs * outputs for inputs, outputs in shape.linear_layers.values())) / shape.parameters
