"""A base model with adapters merged into it, read tensor by tensor and piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.adapter import AdapterRecord
from skills_pipe.training.checkpoint.fingerprint import weights_fingerprint
from skills_pipe.training.checkpoint.safetensors_file import PIECE, Tensor, read_exactly, read_pieces
from skills_pipe.training.checkpoint.stored_weights import StoredWeights

_WEIGHT = ".weight"


class MergedWeights:
    """Gives the tensors of ``base`` as :class:`StoredWeights` gives those of a checkpoint: ``W + scale * B A`` in
    float32 where there is an adapter, and the values of the file elsewhere.

    Args:
        base: the tensors of the base model.
        adapters: ``policy/weights`` of a checkpoint of adapters.
        record: what the checkpoint says of them.

    Raises:
        CheckpointError: an adapter belongs to no tensor of the base model.
    """

    def __init__(self, base: Mapping[str, Tensor], adapters: StoredWeights, record: AdapterRecord) -> None:
        self._base, self._adapters, self._record = base, adapters, record
        self._modules = {_in_base(module, base, record): module for module in adapted(adapters)}
        self._buffer = bytearray(PIECE)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Name, dtype and shape of every tensor."""
        return {
            name: replace(tensor, dtype=torch.float32) if name in self._modules else tensor
            for name, tensor in self._base.items()
        }

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        """The values of a tensor in row-major order, flat; a piece overwrites the one before."""
        module = self._modules.get(name)
        if module is None:
            yield from read_pieces(self._base[name], self._buffer)
            return
        low = whole(self._adapters, f"{module}.lora_A.weight")
        high = whole(self._adapters, f"{module}.lora_B.weight").mul_(self._record.scale)
        lengths = whole(self._adapters, f"{module}.lora_magnitude_vector.weight") if self._record.decomposed else None
        for start, rows in self._rows(self._base[name]):
            part = slice(start, start + len(rows))
            merged = rows.addmm_(high[part], low)
            if lengths is not None:
                merged.mul_((lengths[part] / torch.linalg.vector_norm(merged, dim=1))[:, None])
            yield merged.flatten()

    def _rows(self, tensor: Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Blocks of rows of a matrix in float32, each with the number of its first row."""
        if tensor.path is None:
            raise ValueError(f"{tensor.name} lies in no file")
        count, width = tensor.shape
        row = width * tensor.dtype.itemsize
        block = max(1, PIECE // (width * torch.float32.itemsize))
        with open(tensor.path, "rb", buffering=0) as file:
            for start in range(0, count, block):
                size = min(block, count - start) * row
                stored = bytearray(size)
                read_exactly(file.fileno(), memoryview(stored), tensor.offset + start * row, path=tensor.path)
                values = torch.frombuffer(stored, dtype=tensor.dtype).view(-1, width)
                yield start, values.to(torch.float32)


def base_tensors(record: AdapterRecord, base: str | None = None) -> dict[str, Tensor]:
    """The weights below the adapters: the model that they were trained on, or the same one at another place.

    Raises:
        CheckpointError: it is not there, or its weights are others.
    """
    # Imported here, for exports of all weights: it knows the hub, which takes seconds.
    from skills_pipe.training.models.pretrained.files import stored_tensors

    name = base or record.base
    folder = Path(name)
    if (base or record.base_weights) and not folder.is_dir():
        raise CheckpointError(
            f"the base model of the adapters, {name}, is not there",
            where="--base_model" if base else None,
            fix="give the place where it is now: --base_model=FOLDER",
        )
    if record.base_weights and weights_fingerprint(folder) != record.base_weights:
        raise CheckpointError(
            f"{name} is not the base model that the adapters were trained on: its weights are others",
            where="--base_model" if base else None,
            fix="give the folder of the base model, unchanged: --base_model=FOLDER",
        )
    return stored_tensors(name, None if folder.is_dir() else record.base_commit)


def adapted(adapters: StoredWeights) -> list[str]:
    """Full names of the layers that have an adapter in a checkpoint."""
    end = ".lora_A.weight"
    return [name.removesuffix(end) for name in adapters.tensors if name.endswith(end)]


def whole(weights: StoredWeights, name: str) -> torch.Tensor:
    """A small tensor of a checkpoint, all of it."""
    return torch.cat([piece.clone() for piece in weights.pieces(name)]).view(weights.tensors[name].shape)


def _in_base(module: str, base: Mapping[str, Tensor], record: AdapterRecord) -> str:
    """The tensor that an adapter is merged into; files of models without their output layer lack the first name."""
    for name in (module + _WEIGHT, module.partition(".")[2] + _WEIGHT):
        if name in base:
            return name
    raise CheckpointError(
        f"the base model {record.base} has no {module}{_WEIGHT} for its adapter",
        fix="export with --adapter_only, and merge with peft",
    )
