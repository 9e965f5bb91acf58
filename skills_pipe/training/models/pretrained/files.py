"""The safetensors files of a model: in its folder, or fetched from the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path

from transformers.utils.hub import cached_file

from skills_pipe.errors import CheckpointError, ConfigError
from skills_pipe.training.checkpoint.safetensors_file import INDEX, SINGLE, Tensor, read_header

_KEY = "policy.model_name"
_PICKLES = ("pytorch_model.bin.index.json", "pytorch_model.bin")


def stored_tensors(name: str, revision: str | None = None) -> dict[str, Tensor]:
    """Every tensor of a model by name: where it lies, none of its values.

    Args:
        name: a folder in Hugging Face's format, or the id of a model on the hub.
        revision: commit, tag or branch of a hub model; None for its main branch.

    Raises:
        ConfigError: there are no safetensors, or a file of them is missing or cannot be read.
    """
    index = _find(name, INDEX, revision)
    if index is not None:
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        files = [SINGLE]
    paths = {file: _find(name, file, revision) for file in files}
    missing = [file for file, path in paths.items() if path is None]
    if missing:
        raise _absent(name, missing, revision)
    try:
        return {tensor.name: tensor for path in paths.values() if path for tensor in read_header(path)}
    except CheckpointError as error:
        raise ConfigError(
            f"the weights of {name} cannot be read: {error.what}",
            where=_KEY,
            fix="download the model again, or save it anew with save_pretrained",
        ) from error


def _find(name: str, file: str, revision: str | None) -> Path | None:
    if Path(name).is_dir():
        path = Path(name, file)
        return path if path.is_file() else None
    found = cached_file(
        name,
        file,
        revision=revision or "main",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found) if found else None


def _absent(name: str, missing: list[str], revision: str | None) -> ConfigError:
    if missing == [SINGLE] and any(_find(name, pickle, revision) for pickle in _PICKLES):
        return ConfigError(
            f"the weights of {name} are pickled (pytorch_model.bin), which cannot be read in parts",
            where=_KEY,
            fix='convert them once: python -c "from transformers import AutoModelForCausalLM as M; '
            f"M.from_pretrained({name!r}, dtype='auto').save_pretrained('NEW_FOLDER')\", copy the tokenizer's files "
            "to NEW_FOLDER and name it instead",
        )
    return ConfigError(
        f"{name} cannot be read as a Hugging Face model: it lacks {', '.join(missing)}",
        where=_KEY,
        fix="give a folder with config.json and safetensors, or the id of a model on the hub",
    )
