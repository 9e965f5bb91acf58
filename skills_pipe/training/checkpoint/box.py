"""A box of a stored tensor, read without the rest of it and without a copy of its own."""

from __future__ import annotations

import math
import os

import torch

from skills_pipe.training.checkpoint.safetensors_file import PIECE, Tensor, read_exactly


class BoxReader:
    """Reads boxes of tensors through one buffer of :data:`PIECE` bytes; for one thread."""

    def __init__(self) -> None:
        self._buffer = bytearray(PIECE)

    def read(self, tensor: Tensor, offsets: tuple[int, ...], into: torch.Tensor) -> None:
        """Fill ``into`` with the box of its shape that begins at ``offsets``, cast to its dtype.

        Args:
            tensor: lies in a file; has as many dimensions as ``into``.
            offsets: first index in each dimension.
            into: on any device, contiguous or not.

        Raises:
            CheckpointError: the file ends too early.
        """
        if tensor.path is None:
            raise ValueError(f"{tensor.name} lies in no file")
        if not into.numel():
            return
        descriptor = os.open(tensor.path, os.O_RDONLY)
        try:
            self._read(descriptor, tensor, offsets, into)
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int, tensor: Tensor, offsets: tuple[int, ...], into: torch.Tensor) -> None:
        if not tensor.shape:
            into.copy_(self._values(descriptor, tensor, tensor.offset, ()))
            return
        inner = tensor.shape[1:]
        row = math.prod(inner) * tensor.dtype.itemsize
        first = tensor.offset + offsets[0] * row
        if row > len(self._buffer) and inner:
            for index in range(len(into)):
                at = Tensor(
                    name=tensor.name, dtype=tensor.dtype, shape=inner, path=tensor.path, offset=first + index * row
                )
                self._read(descriptor, at, offsets[1:], into[index])
            return
        # Whole rows, of which a box may need some columns only.
        columns = tuple(slice(at, at + size) for at, size in zip(offsets[1:], into.shape[1:], strict=True))
        step = len(self._buffer) // row
        for begin in range(0, len(into), step):
            rows = min(step, len(into) - begin)
            values = self._values(descriptor, tensor, first + begin * row, (rows, *inner))
            into[begin : begin + rows].copy_(values[(slice(None), *columns)])

    def _values(self, descriptor: int, tensor: Tensor, start: int, shape: tuple[int, ...]) -> torch.Tensor:
        count = math.prod(shape)
        view = memoryview(self._buffer)[: count * tensor.dtype.itemsize]
        read_exactly(descriptor, view, start, path=tensor.path)
        return torch.frombuffer(self._buffer, dtype=tensor.dtype, count=count).view(shape)
