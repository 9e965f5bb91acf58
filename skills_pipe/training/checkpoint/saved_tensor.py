"""Where the bytes of a tensor lie in a file of ``torch.save``, without reading them."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def first_byte(file: io.RawIOBase | BinaryIO, shape: tuple[int, ...], dtype: torch.dtype) -> int | None:
    """The first byte of the one tensor that ``file`` holds, whose values lie there in row-major order.

    ``torch.load`` of a fake tensor says the same, and takes a hundred times as long.

    Returns:
        None where the tensor lies otherwise than ``shape`` and ``dtype`` say, or in a way that is not known here: then
        ``torch.load`` must read it.
    """
    file.seek(0)
    archive = torch._C.PyTorchFileReader(file)
    try:
        found = _Description(io.BytesIO(archive.get_record("data.pkl"))).load()
    except pickle.UnpicklingError:
        return None
    if not isinstance(found, _Saved) or archive.get_record("byteorder") != b"little":
        return None
    if found.storage.dtype != dtype or found.shape != shape or found.strides != _row_major(shape):
        return None
    return int(archive.get_record_offset(f"data/{found.storage.key}")) + found.start * dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class _Storage:
    """The numbers that a tensor is a view of."""

    key: str
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """A tensor as its file describes it; ``start`` and ``strides`` count elements of its storage."""

    storage: _Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Description(pickle.Unpickler):
    """Reads what a tensor is; of all that a pickle could name, it knows the parts of a plain tensor."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _described
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a plain tensor")

    def persistent_load(self, identity: Any) -> _Storage:
        _, dtype, key, _, _ = identity
        return _Storage(key=key, dtype=dtype)


def _described(storage: _Storage, start: int, shape: Any, strides: Any, *rest: Any) -> _Saved:
    return _Saved(storage=storage, start=start, shape=tuple(shape), strides=tuple(strides))


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(1, size)
    return tuple(reversed(strides))
