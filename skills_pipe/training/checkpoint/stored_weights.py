"""The weights of a checkpoint, read tensor by tensor and piece by piece, without a process group or a model.

A checkpoint of ``torch.distributed.checkpoint`` lists, for every tensor, the blocks that the ranks wrote and where
each lies in which file; every block there is a file of ``torch.save`` of its own.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorStorageMetadata

from skills_pipe.training.checkpoint.safetensors_file import PIECE, Tensor, read_exactly
from skills_pipe.training.checkpoint.saved_tensor import first_byte


@dataclass(frozen=True, kw_only=True)
class _Block:
    """A box of a tensor and the file region that holds it."""

    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    path: Path
    start: int
    length: int


class StoredWeights:
    """Reads ``policy/weights`` of a checkpoint.

    Args:
        folder: as written by :func:`skills_pipe.training.checkpoint.tensors.write`; whole, its hashes checked.
    """

    def __init__(self, folder: Path) -> None:
        metadata = dcp.FileSystemReader(folder).read_metadata()
        self._blocks: dict[str, list[_Block]] = {}
        self._tensors: dict[str, Tensor] = {}
        self._buffer = bytearray(PIECE)
        for name, stored in metadata.state_dict_metadata.items():
            if not isinstance(stored, TensorStorageMetadata):
                continue
            dtype = stored.properties.dtype
            self._tensors[name] = Tensor(name=name, dtype=dtype, shape=tuple(stored.size))
            self._blocks[name] = []
            for chunk in sorted(stored.chunks, key=lambda chunk: tuple(chunk.offsets)):
                place = _place(metadata.storage_data, name, chunk.offsets)
                block = _Block(
                    offsets=tuple(chunk.offsets),
                    shape=tuple(chunk.sizes),
                    path=folder / place.relative_path,
                    start=place.offset,
                    length=place.length,
                )
                if 0 not in block.shape:
                    self._blocks[name].append(block)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Name, dtype and shape of every tensor."""
        return dict(self._tensors)

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        """The values of a tensor in row-major order, flat, in its stored dtype; a piece overwrites the one before."""
        tensor, blocks = self._tensors[name], self._blocks[name]
        if all(block.shape[1:] == tensor.shape[1:] for block in blocks):
            for block in blocks:
                yield from _stream(block, tensor.dtype, self._buffer)
            return
        # Split along another dimension than the first: the rows of several blocks interleave.
        whole = torch.empty(tensor.shape, dtype=tensor.dtype)
        for block in blocks:
            box = tuple(slice(start, start + size) for start, size in zip(block.offsets, block.shape, strict=True))
            whole[box] = _load(block)
        yield from whole.flatten().split(PIECE // tensor.dtype.itemsize)


def _place(storage: Any, name: str, offsets: torch.Size) -> Any:
    return storage[MetadataIndex(name, offsets)]


def _stream(block: _Block, dtype: torch.dtype, buffer: bytearray) -> Iterator[torch.Tensor]:
    with open(block.path, "rb") as file:
        first = first_byte(_Region(file, block.start, block.length), block.shape, dtype)
        if first is None:
            yield from _load(block).flatten().split(PIECE // dtype.itemsize)
            return
        size = math.prod(block.shape) * dtype.itemsize
        for start in range(0, size, PIECE):
            count = min(PIECE, size - start)
            view = memoryview(buffer)[:count]
            read_exactly(file.fileno(), view, block.start + first + start, path=block.path)
            yield torch.frombuffer(buffer, dtype=dtype, count=count // dtype.itemsize)


def _load(block: _Block) -> torch.Tensor:
    with open(block.path, "rb") as file:
        loaded: torch.Tensor = torch.load(_Region(file, block.start, block.length), weights_only=True)
    return loaded


class _Region(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self._file, self._start, self._length = file, start, length
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view = view[: max(0, min(len(view), self._length - self._position))]
        self._file.seek(self._start + self._position)
        count = self._file.readinto(view)  # type: ignore[attr-defined]
        self._position += count
        return count
