"""A short hash of a base model, so that a run never goes on from the checkpoint of another model."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skills_pipe.artifacts.identity import digest

if TYPE_CHECKING:  # seconds that the programs which only read checkpoints save
    from transformers import PreTrainedConfig

_BLOCK = 64 * 1024
_NOT_THE_MODEL = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "_attn_implementation"}


def model_fingerprint(config: PreTrainedConfig, name_or_path: str) -> str:
    """Fingerprint of the base model that ``name_or_path`` names and ``config`` describes.

    It covers the architecture and, so that two models of one architecture differ, the weights: for a local folder
    the size and sampled blocks of every weight file (independent of where the folder lies and when it was copied),
    for a model of the hub its name and commit.
    """
    architecture = {name: value for name, value in config.to_dict().items() if name not in _NOT_THE_MODEL}
    folder = Path(name_or_path)
    weights: Any = _sample_folder(folder) if folder.is_dir() else [name_or_path, getattr(config, "_commit_hash", None)]
    return digest({"architecture": architecture, "weights": weights})


def weights_fingerprint(folder: Path) -> str:
    """Fingerprint of the weight files of a local folder, as in :func:`model_fingerprint`."""
    return digest(_sample_folder(folder))


def _sample_folder(folder: Path) -> list[list[Any]]:
    files = sorted(path for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern))
    return [[path.name, path.stat().st_size, _sample(path)] for path in files]


def _sample(path: Path) -> str:
    """sha256 over the first, the last and 14 evenly spaced blocks of a file."""
    size = path.stat().st_size
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        for index in range(16):
            file.seek(max(0, size - _BLOCK) * index // 15, os.SEEK_SET)
            hasher.update(file.read(_BLOCK))
    return hasher.hexdigest()
