"""Layers with a low-rank adapter of which each rank of a group has a part.

The matrix on the side that is shared is shared with it, the other one every rank has whole: B and the lengths of rows
go with the outputs of a column, A with the inputs of a row. What a rank knows of the gradient of a whole matrix is a
part of a sum: it has seen some outputs, or some inputs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import ClassVar

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import Placement, Replicate, Shard

from skills_pipe.training.backends.fsdp.tensor_parallel.collectives import TensorGroup
from skills_pipe.training.backends.fsdp.tensor_parallel.layers import (
    ColumnLinear,
    Layer,
    Parameters,
    RowLinear,
    distribute,
    own_part,
)
from skills_pipe.training.models.lora import LoraLinear
from skills_pipe.training.models.lora.lengths import RowLengths
from skills_pipe.training.models.lora.linear import Matrices


class ColumnLora(LoraLinear, ColumnLinear):
    """With an adapter of which each rank has the rows of B that belong to its outputs, and the whole of A."""

    adapter_placements: ClassVar[Mapping[str, Placement]] = {
        "lora_A": Replicate(),
        "lora_B": Shard(0),
        "lora_magnitude_vector": Shard(0),
    }

    def _matrices(self) -> Matrices:
        return Matrices(
            weight=own_part(self.weight),
            bias=own_part(self.bias) if self.bias is not None else None,
            low=own_part(self.lora_A.weight, partial_gradient=True),
            high=own_part(self.lora_B.weight),
        )


class RowLora(LoraLinear, RowLinear):
    """With an adapter of which each rank has the columns of A that belong to its inputs, and the whole of B.

    The sum over the ranks that the layer needs anyway is that of the low-rank product too: B is linear.
    """

    adapter_placements: ClassVar[Mapping[str, Placement]] = {
        "lora_A": Shard(1),
        "lora_B": Replicate(),
        "lora_magnitude_vector": Replicate(),
    }

    def _matrices(self) -> Matrices:
        # It is to be in the sum once; rows that are scaled get it after the sum.
        adds = self.bias is not None and (self.spec.decomposed or self.tensor_group.rank == 0)
        return Matrices(
            weight=own_part(self.weight),
            bias=own_part(self.bias) if adds else None,
            low=own_part(self.lora_A.weight),
            high=own_part(self.lora_B.weight, partial_gradient=True),
        )

    def _over_inputs(self, outputs: Tensor) -> Tensor:
        return self.tensor_group.leave(outputs)

    def _squares_over_inputs(self, squares: Tensor) -> Tensor:
        dist.all_reduce(squares, group=self.tensor_group.group)
        return squares


class SharedLengths(RowLengths):
    """Lengths of the rows of a layer that ranks share."""

    partial_gradient: bool

    def forward(self, present: Tensor) -> Tensor:
        """Factors for rows that have the lengths ``present``; both float32, of all rows or of those of this rank."""
        return own_part(self.weight, partial_gradient=self.partial_gradient) / present


def spread_adapted(module: LoraLinear, layer: Layer, group: TensorGroup, known: Parameters) -> None:
    """:func:`.layers.spread` of a layer with an adapter: ``layer`` is what it would become without.

    Raises:
        ValueError: it has no form with an adapter, or its adapter drops out of what ranks would have to drop alike.
    """
    if module.spec.dropout > 0:
        raise ValueError("ranks that share a layer would each drop out something else")
    made = _adapted(layer)
    distribute(module, layer.placements, group, known)
    for name, placement in made.adapter_placements.items():
        part = getattr(module, name)
        if part is not None:
            distribute(part, {"weight": placement}, group, known)
    module.__class__ = made
    module.tensor_group = group  # type: ignore[assignment]
    if module.lora_magnitude_vector is not None:
        module.lora_magnitude_vector.__class__ = SharedLengths
        # With sequence parallelism each rank scales the outputs of some tokens.
        partial = issubclass(made, RowLora) and group.sequence
        module.lora_magnitude_vector.partial_gradient = partial  # type: ignore[assignment]


@functools.cache
def _adapted(layer: Layer) -> type[ColumnLora | RowLora]:
    """``layer`` with an adapter; what a kind of it does with its outputs is done to the sum."""
    for plain, adapted in ((ColumnLinear, ColumnLora), (RowLinear, RowLora)):
        if layer is plain:
            return adapted
        if issubclass(layer, plain):
            return type(f"{layer.__name__}Lora", (layer, adapted), {})
    raise ValueError(f"no tensor parallel form of an adapter on a {layer.__name__}")
