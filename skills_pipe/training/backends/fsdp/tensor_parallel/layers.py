"""Layers of which each rank of a group has a part; they take the place of a module's class and keep its names.

Parameters are DTensors over the group. The layers compute with this rank's part as a plain tensor.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor
from torch.nn import functional

from skills_pipe.training.backends.fsdp.tensor_parallel.collectives import TensorGroup

Parameters = dict[int, nn.Parameter]
"""Parameters that are spread already, by the ``id`` of what they were: tied ones stay one."""


class ColumnLinear(nn.Linear):
    """A linear layer of which each rank computes some outputs, from all inputs."""

    placements: ClassVar[Mapping[str, Placement]] = {"weight": Shard(0), "bias": Shard(0)}
    tensor_group: TensorGroup

    def forward(self, hidden: Tensor) -> Tensor:
        """``[1, tokens, inputs]`` to ``[1, tokens, outputs / size]``."""
        bias = own_part(self.bias) if self.bias is not None else None
        return functional.linear(hidden, own_part(self.weight), bias)


class RowLinear(nn.Linear):
    """A linear layer of which each rank has some inputs; the outputs are summed up over the ranks."""

    placements: ClassVar[Mapping[str, Placement]] = {"weight": Shard(1), "bias": Replicate()}
    tensor_group: TensorGroup

    def forward(self, hidden: Tensor) -> Tensor:
        """``[1, tokens, inputs / size]`` to ``[1, tokens, outputs]``, or to this rank's tokens of it."""
        return self.tensor_group.leave(functional.linear(hidden, own_part(self.weight), self._bias_once()))

    def _bias_once(self) -> Tensor | None:
        """The bias on the first rank and zeros on the others: it is to be in the sum once."""
        if self.bias is None:
            return None
        return own_part(self.bias, partial_gradient=True) * (1.0 if self.tensor_group.rank == 0 else 0.0)


class VocabularyEmbedding(nn.Embedding):
    """An embedding of which each rank has some words."""

    placements: ClassVar[Mapping[str, Placement]] = {"weight": Shard(0)}
    tensor_group: TensorGroup

    def forward(self, ids: Tensor) -> Tensor:
        """``[1, tokens]`` to ``[1, tokens, width]``, or to this rank's tokens of it."""
        weight = own_part(self.weight)
        words = weight.shape[0]
        first = self.tensor_group.rank * words
        index = ids - first
        elsewhere = (index < 0) | (index >= words)
        padding = None if self.padding_idx is None else self.padding_idx - first
        if padding is not None and not 0 <= padding < words:
            padding = None
        found = functional.embedding(index.masked_fill(elsewhere, 0), weight, padding)
        return self.tensor_group.leave(found.masked_fill(elsewhere.unsqueeze(-1), 0.0))


class _WholeWeights(nn.Module):
    """Mixed into a module whose whole weights every rank has."""

    placements: ClassVar[Mapping[str, Placement]] = {"weight": Replicate(), "bias": Replicate()}
    tensor_group: TensorGroup

    def _computed(self, hidden: Tensor, *, partial_gradient: bool) -> Any:
        """The module's own forward pass, with its weights as plain tensors."""
        with own_parts(self, partial_gradient=partial_gradient):
            return super().forward(hidden)


class EnteringNorm(_WholeWeights):
    """Mixed into a norm before attention, MLP or output layer: its output is for all ranks and all tokens."""

    def forward(self, hidden: Tensor) -> Tensor:
        """``[1, tokens, width]`` to ``[1, all tokens, width]``."""
        # With sequence parallelism each rank norms some of the tokens.
        normed = self._computed(hidden, partial_gradient=self.tensor_group.sequence)
        return self.tensor_group.enter(normed)


class AddedNorm(_WholeWeights):
    """Mixed into a norm behind attention or MLP, of what they add to the hidden states."""

    def forward(self, hidden: Tensor) -> Tensor:
        """``[1, tokens, width]`` to the same shape."""
        return self._computed(hidden, partial_gradient=self.tensor_group.sequence)


class HeadNorm(_WholeWeights):
    """Mixed into a norm over each head, of which this rank has some."""

    def forward(self, hidden: Tensor) -> Tensor:
        """``[1, tokens, heads, head_dim]`` to the same shape."""
        return self._computed(hidden, partial_gradient=True)


class Router(_WholeWeights):
    """Mixed into what chooses experts of all tokens, of which this rank has some: it knows a part of the gradient."""

    def forward(self, hidden: Tensor) -> Any:
        """Whatever the module makes of ``[tokens, width]``."""
        return self._computed(hidden, partial_gradient=True)


class SinkAttention(nn.Module):
    """Mixed into an attention that has a score for each head itself, of which this rank has some."""

    placements: ClassVar[Mapping[str, Placement]] = {"sinks": Shard(0)}
    tensor_group: TensorGroup

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own forward pass."""
        with own_parts(self):
            return super().forward(*args, **kwargs)


Layer = type[nn.Module]
"""One of the classes above, or of the neighbouring files, with ``placements`` of its parameters."""


def spread(module: nn.Module, layer: Layer, group: TensorGroup, known: Parameters) -> None:
    """Turn ``module`` into ``layer``, and its parameters into DTensors of which this rank keeps its part.

    Every rank passes the same weights; nothing is sent.
    """
    # What has no parameters of its own has no placements.
    distribute(module, getattr(layer, "placements", {}), group, known)
    module.__class__ = _class_of_both(layer, type(module))
    module.tensor_group = group  # type: ignore[assignment]


def distribute(module: nn.Module, placements: Mapping[str, Placement], group: TensorGroup, known: Parameters) -> None:
    """Turn the parameters of ``module`` into DTensors of which this rank keeps its part; it stays what it is."""
    for name, parameter in module._parameters.items():
        if parameter is None:
            continue
        if id(parameter) not in known:
            part = distribute_tensor(parameter.detach(), group.mesh, [placements[name]], src_data_rank=None)
            known[id(parameter)] = nn.Parameter(part, requires_grad=parameter.requires_grad)
        module._parameters[name] = known[id(parameter)]


def own_part(parameter: Tensor | None, *, partial_gradient: bool = False) -> Tensor:
    """This rank's part of a DTensor parameter as a plain tensor, through which gradients go back.

    Args:
        parameter: over the group's mesh; anything else is a bug.
        partial_gradient: the gradient of each rank is a part of a sum.
    """
    if not isinstance(parameter, DTensor):
        raise TypeError(f"a parameter of a tensor parallel layer is a {type(parameter).__name__}")
    part: Tensor = parameter.to_local(grad_placements=[Partial()] if partial_gradient else None)
    return part


@contextmanager
def own_parts(module: nn.Module, *, partial_gradient: bool = False) -> Iterator[None]:
    """Inside this block the parameters of ``module`` itself are :func:`own_part` of them."""
    spread = dict(module._parameters)
    for name, parameter in spread.items():
        if parameter is not None:
            module._parameters[name] = own_part(parameter, partial_gradient=partial_gradient)  # type: ignore[assignment]
    try:
        yield
    finally:
        module._parameters.update(spread)


@functools.cache
def _class_of_both(layer: type[nn.Module], own: type[nn.Module]) -> type[nn.Module]:
    """A class for a module of the class ``own`` that is a ``layer`` too, as ``fully_shard`` makes them."""
    if issubclass(layer, own):
        return layer
    # What a family makes of an embedding, as to multiply it, is done to what ours gives; ours goes before a norm's own.
    bases = (own, layer) if issubclass(layer, nn.Embedding) else (layer, own)
    return type(f"{layer.__name__}{own.__name__}", bases, {})
