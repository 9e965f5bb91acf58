"""Experts that a model holds as one tensor, as the matrices of which published files of its family consist."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch

from skills_pipe.training.checkpoint.safetensors_file import Tensor
from skills_pipe.training.models.pretrained.names import matrices_of_experts

FAMILIES = ("qwen3_moe",)
"""``model_type`` of the models whose files have a matrix for each expert."""


class Weights(Protocol):
    """Tensors that are read piece by piece."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Name, dtype and shape of every tensor."""

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        """The values of a tensor in row-major order, flat; a piece overwrites the one before."""


@dataclass(kw_only=True)
class _Stream:
    """A tensor of all experts as it is read, and how far.

    Attributes:
        name: of the tensor.
        rest: what follows.
        piece: what was read and not given yet.
        position: values that were given.
    """

    name: str
    rest: Iterator[torch.Tensor]
    piece: torch.Tensor
    position: int = 0

    def take(self, count: int) -> Iterator[torch.Tensor]:
        """The next ``count`` values."""
        while count:
            if not len(self.piece):
                self.piece = next(self.rest)
            given, self.piece = self.piece[:count], self.piece[count:]
            count -= len(given)
            self.position += len(given)
            yield given


class ExpertMatrices:
    """Gives ``weights`` with tensors of all experts taken apart.

    The matrices of one tensor lie in it one behind the other: asked for in the order of :attr:`tensors`, it is read
    once.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._stream: _Stream | None = None
        self._tensors: dict[str, Tensor] = {}
        self._places: dict[str, tuple[str, int]] = {}
        for name, tensor in weights.tensors.items():
            start = 0
            for matrix, shape in matrices_of_experts(name, tensor.shape) or [(name, tensor.shape)]:
                self._tensors[matrix] = Tensor(name=matrix, dtype=tensor.dtype, shape=shape)
                if matrix != name:
                    self._places[matrix] = (name, start)
                start += prod(shape)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Name, dtype and shape of every tensor."""
        return dict(self._tensors)

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        """The values of a tensor in row-major order, flat; a piece overwrites the one before."""
        if name not in self._places:
            yield from self._weights.pieces(name)
            return
        whole, start = self._places[name]
        stream = self._stream
        if stream is None or stream.name != whole or stream.position > start:
            dtype = self._tensors[name].dtype
            stream = _Stream(name=whole, rest=self._weights.pieces(whole), piece=torch.empty(0, dtype=dtype))
            self._stream = stream
        for _ in stream.take(start - stream.position):
            pass
        yield from stream.take(prod(self._tensors[name].shape))
