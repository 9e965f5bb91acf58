"""Adapters as a folder that peft, and what serves adapters, reads: adapter_config.json, adapter_model.safetensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from skills_pipe.artifacts.manifest import FileRecord
from skills_pipe.training.checkpoint.adapter import ADAPTER_CONFIG, AdapterRecord
from skills_pipe.training.checkpoint.safetensors_file import Tensor, write_tensors
from skills_pipe.training.checkpoint.stored_weights import StoredWeights

ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."


def write_peft_folder(folder: Path, adapters: StoredWeights, record: AdapterRecord) -> dict[str, FileRecord]:
    """Write the adapters of a checkpoint, float32, into ``folder``, which exists.

    Returns:
        size and hash of the weight file by its name.
    """
    names = {_published(name): name for name in adapters.tensors if ".lora_" in name}
    tensors = [replace(adapters.tensors[name], name=published) for published, name in names.items()]

    def produce(tensor: Tensor) -> Iterator[torch.Tensor]:
        return adapters.pieces(names[tensor.name])

    record.write(folder / ADAPTER_CONFIG)
    return {ADAPTER_WEIGHTS: write_tensors(folder / ADAPTER_WEIGHTS, tensors, produce)}


def _published(name: str) -> str:
    """peft's files call the lengths of DoRA by the name of their module."""
    return _PREFIX + (name.removesuffix(".weight") if name.endswith(".lora_magnitude_vector.weight") else name)
