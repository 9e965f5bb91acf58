"""What linear layers take whose weights are kept in 4 bit."""

from __future__ import annotations

from dataclasses import dataclass

from skills_pipe.training.config.estimate.shape import ModelShape
from skills_pipe.training.config.quantization import is_quantized, quantization_spec
from skills_pipe.training.config.schema import PolicyConfig


@dataclass(frozen=True, kw_only=True)
class PackedBase:
    """Matrices in 4 bit of a model, all together; zeros where it has none.

    Attributes:
        numbers: weights that they stand for.
        sharded: bytes that ranks share.
        everywhere: bytes that every rank has.
        largest: weights of the largest one.
    """

    numbers: int = 0
    sharded: int = 0
    everywhere: int = 0
    largest: int = 0


def packed_base(shape: ModelShape, policy: PolicyConfig) -> PackedBase:
    """Those of a model that is trained as a configuration says."""
    spec = quantization_spec(policy)
    if spec is None:
        return PackedBase()
    sizes = [size for name, size in shape.linear_layers.items() if is_quantized(name)]
    return PackedBase(
        numbers=sum(inputs * outputs for inputs, outputs in sizes),
        sharded=sum(spec.bytes_of(inputs, outputs) for inputs, outputs in sizes),
        everywhere=sum(spec.bytes_everywhere(inputs, outputs) for inputs, outputs in sizes),
        largest=max((inputs * outputs for inputs, outputs in sizes), default=0),
    )
