"""Hugging Face weight files, read and written in pieces, so that a model of any size passes through a little memory.

A file is: header length (8 bytes, little endian), header (JSON: name -> dtype, shape, data_offsets), tensor bytes
without gaps. Several files of a model come with ``model.safetensors.index.json``.
Source: https://github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from skills_pipe.artifacts.manifest import FileRecord
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.hashed_file import HashedFile

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PIECE = 8 * 1024 * 1024
"""Bytes of a tensor that are in memory at a time."""

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor of a model: what it is, not its values.

    Attributes:
        name: as in the model's state dict.
        dtype: of the elements in the file.
        shape: of the tensor.
        path: the file that holds it; None before it is written.
        offset: first byte in that file.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    path: Path | None = None
    offset: int = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


Produce = Callable[[Tensor], Iterable[torch.Tensor]]
"""Gives the values of a tensor in row-major order, flat, in pieces of its dtype; the next piece may overwrite it."""


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a Hugging Face model folder by name.

    Raises:
        CheckpointError: no safetensors lie there, a file is missing or is not a safetensors file.
    """
    index = folder / INDEX
    names = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.is_file() else [SINGLE]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{', '.join(missing)} missing", where=str(folder), fix="export the checkpoint again as safetensors"
        )
    return {tensor.name: tensor for name in names for tensor in read_header(folder / name)}


def read_pieces(tensor: Tensor, buffer: bytearray | None = None) -> Iterator[torch.Tensor]:
    """The values of a tensor on disk, piece by piece; each piece overwrites the one before it.

    ``buffer``, of :data:`PIECE` bytes, can serve many tensors: one for each would fragment the heap.
    """
    if tensor.path is None:
        raise ValueError(f"{tensor.name} lies in no file")
    if buffer is None:
        buffer = bytearray(min(PIECE, tensor.size))
    with open(tensor.path, "rb", buffering=0) as file:
        for start in range(0, tensor.size, PIECE):
            count = min(PIECE, tensor.size - start)
            read_exactly(file.fileno(), memoryview(buffer)[:count], tensor.offset + start, path=tensor.path)
            yield torch.frombuffer(buffer, dtype=tensor.dtype, count=count // tensor.dtype.itemsize)


def read_exactly(descriptor: int, view: memoryview, offset: int, *, path: Path) -> None:
    """Fill ``view`` from a file, from byte ``offset`` on."""
    done = 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], offset + done)
        if count == 0:
            raise CheckpointError(f"{path} ends at byte {offset + done}", fix="restore the file or make it again")
        done += count


def write_model(
    folder: Path,
    tensors: Iterable[Tensor],
    produce: Produce,
    *,
    max_shard_size: int,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, FileRecord]:
    """Write the weights of a model into ``folder``: one file, or several with an index.

    Args:
        folder: exists already.
        tensors: what to write.
        produce: gives the values of each of them.
        max_shard_size: bytes; only a tensor that is larger itself makes a larger file.
        metadata: goes into the header of every file and into the index.

    Returns:
        size and hash of every weight file by its name.
    """
    shards = _plan_shards(tensors, max_shard_size)
    many = len(shards) > 1
    records, weight_map = {}, {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if many else SINGLE
        records[name] = write_tensors(folder / name, shard, produce, metadata)
        weight_map.update({tensor.name: name for tensor in shard})
    if many:
        total = sum(tensor.size for shard in shards for tensor in shard)
        index = {"metadata": {"total_size": total, **(metadata or {})}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return records


def read_header(path: Path) -> list[Tensor]:
    """Every tensor of one file.

    Raises:
        CheckpointError: it is not a safetensors file, or holds elements of a type that is not known.
    """
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size - 8:
                raise ValueError("the header is longer than the file")
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return [
            Tensor(
                name=name,
                dtype=_DTYPES[entry["dtype"]],
                shape=tuple(entry["shape"]),
                path=path,
                offset=8 + length + entry["data_offsets"][0],
            )
            for name, entry in header.items()
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not a safetensors file that can be read ({error})", fix="export the checkpoint again"
        ) from error


def _plan_shards(tensors: Iterable[Tensor], max_shard_size: int) -> list[list[Tensor]]:
    """Files in the order of the tensors, each filled until the next tensor would overflow it."""
    shards: list[list[Tensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.size > max_shard_size:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.size
    return shards


def write_tensors(
    path: Path, tensors: Sequence[Tensor], produce: Produce, metadata: Mapping[str, str] | None = None
) -> FileRecord:
    """Write one file of tensors and return its size and hash; see :func:`write_model`."""
    # Wide elements first: every tensor then starts at a multiple of its element size.
    ordered = sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    offset = 0
    for tensor in ordered:
        spot = [offset, offset + tensor.size]
        header[tensor.name] = {"dtype": _NAMES[tensor.dtype], "shape": tensor.shape, "data_offsets": spot}
        offset += tensor.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with HashedFile(path, piece=PIECE) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in ordered:
            written = 0
            for piece in produce(tensor):
                values = memoryview(piece.view(torch.uint8).numpy())
                file.write(values)
                written += len(values)
            if written != tensor.size:
                raise RuntimeError(f"{tensor.name}: {written} bytes were produced, {tensor.size} announced")
        return file.record()


def with_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The same tensor in another floating point type; a tensor of integers as it is."""
    return replace(tensor, dtype=dtype) if tensor.dtype.is_floating_point else tensor
