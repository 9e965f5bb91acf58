"""What adapters have and keep."""

from __future__ import annotations

from skills_pipe.training.config.adapters import adapter_spec
from skills_pipe.training.config.estimate.shape import ModelShape
from skills_pipe.training.config.schema import PolicyConfig


def adapter_parameters(shape: ModelShape, policy: PolicyConfig) -> int | None:
    """Numbers in the adapters that are trained; None where all weights are."""
    spec = adapter_spec(policy)
    matrices = adapter_matrices(shape, policy)
    if spec is None or matrices is None:
        return None
    lengths = sum(outputs for name, (_, outputs) in shape.linear_layers.items() if spec.wants(name))
    return matrices + lengths * spec.decomposed


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
