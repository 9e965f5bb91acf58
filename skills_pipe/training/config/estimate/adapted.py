"""What adapters have and keep."""

from __future__ import annotations

from typing import Final

from skills_pipe.training.config.adapters import adapter_spec
from skills_pipe.training.config.estimate.shape import ModelShape
from skills_pipe.training.config.schema import PolicyConfig

_ROWS: Final = ("o_proj", "down_proj")
"""Last names of layers of which ranks that share them have some inputs each, and of the others some outputs."""


def adapter_parameters(shape: ModelShape, policy: PolicyConfig) -> int | None:
    """Numbers in the adapters that are trained; None where all weights are."""
    spec = adapter_spec(policy)
    matrices = adapter_matrices(shape, policy)
    if spec is None or matrices is None:
        return None
    lengths = sum(outputs for name, (_, outputs) in shape.linear_layers.items() if spec.wants(name))
    return matrices + lengths * spec.decomposed


def adapter_parameters_met(shape: ModelShape, policy: PolicyConfig) -> int | None:
    """Of them those that one rank computes with: of each pair of matrices ranks that share layers have one whole."""
    spec = adapter_spec(policy)
    if spec is None:
        return None
    ranks, met = policy.dtensor_cfg.tensor_parallel_size, 0
    for name, (inputs, outputs) in shape.linear_layers.items():
        if spec.wants(name):
            rows = name.endswith(_ROWS)
            here = (inputs // ranks, outputs) if rows else (inputs, outputs // ranks)
            met += spec.dim * sum(here) + here[1] * spec.decomposed
    return met


def adapter_matrices(shape: ModelShape, policy: PolicyConfig) -> int | None:
    """As :func:`adapter_parameters`, without lengths of rows."""
    spec = adapter_spec(policy)
    if spec is None:
        return None
    return sum(
        spec.dim * (inputs + outputs) for name, (inputs, outputs) in shape.linear_layers.items() if spec.wants(name)
    )


def adapter_activations(shape: ModelShape, policy: PolicyConfig, tokens: int, *, layers: int) -> int:
    """Numbers that adapters keep besides in so many layers: what is between A and B."""
    spec = adapter_spec(policy)
    if spec is None:
        return 0
    return tokens * spec.dim * sum(spec.wants(name) for name in shape.linear_layers) * layers // shape.layers
