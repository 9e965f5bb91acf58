"""The weights of a base model, read straight into the shards of this rank."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import local

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from skills_pipe.errors import ConfigError
from skills_pipe.training.checkpoint.box import BoxReader
from skills_pipe.training.checkpoint.safetensors_file import Tensor, read_pieces
from skills_pipe.training.models.pretrained.names import Part, is_whole, parts_of

_KEY = "policy.model_name"
READERS = 4
"""That read at the same time: a network file system gives one reader a part of its speed only."""

_COMPUTED = (r"rotary_emb\.inv_freq$", r"\.attn\.(masked_)?bias$")
"""Tables that old files hold and models compute."""


class PretrainedWeights:
    """Where the value of every parameter of a model lies in files.

    Args:
        parts: what every parameter is made of, by its name in the model; tied ones under their first name.
    """

    def __init__(self, parts: Mapping[str, Sequence[Part]]) -> None:
        self._parts = parts

    @classmethod
    def of(cls, model: PreTrainedModel, stored: Mapping[str, Tensor], *, name: str) -> PretrainedWeights:
        """Compare a model, which needs no memory, with what its files hold.

        Args:
            model: as its family's class builds it: neither wrapped nor sharded.
            stored: from :func:`skills_pipe.training.models.pretrained.files.stored_tensors`.
            name: of the model, for messages.

        Raises:
            ConfigError: names or shapes do not fit; all of them are in one line.
        """
        prefix = model.base_model_prefix
        parts, found, used = {}, [], set()
        for names, tensor in _named_tensors(model):
            candidates = [parts_of(alias, tuple(tensor.shape), stored, prefix) for alias in names]
            known = [candidate for candidate in candidates if candidate]
            used |= {part.stored.name for candidate in known for part in candidate}
            if not known:
                found.append(f"{names[0]} is missing and would start from random numbers")
            elif not is_whole(tuple(tensor.shape), known[0]):
                shapes = ", ".join(str(part.stored.shape) for part in known[0][:2])
                found.append(f"{names[0]} has the shape {shapes}, and the model's is {tuple(tensor.shape)}")
            elif len(known) > 1 and not _equal(known[0][0].stored, known[1][0].stored):
                found.append(
                    f"{' and '.join(names)} are tied in the model and differ (policy.hf_config_overrides."
                    "tie_word_embeddings=false unties them)"
                )
            else:
                parts[names[0]] = known[0]
        ignored = [*(model._keys_to_ignore_on_load_unexpected or ()), *_COMPUTED]
        extra = [key for key in stored if key not in used and not any(re.search(each, key) for each in ignored)]
        found += [f"{key} has no place in the model" for key in extra]
        if found:
            raise ConfigError(
                f"the weights of {name} do not fit: {_some(found)}",
                where=_KEY,
                fix="use a complete checkpoint of this model, with the config.json that belongs to it",
            )
        return cls(parts)

    def fill(self, model: nn.Module, original: Callable[[str], str | None] = lambda name: name) -> None:
        """Read the values of every parameter of ``model``, or of this rank's shard of it, cast to its dtype.

        Args:
            model: with memory; sharded or not.
            original: gives for the name of a parameter that in the base model; None for one that is not in files.

        Raises:
            KeyError: a parameter that the base model does not have.
        """
        wanted = [
            (self._parts[base], tensor)
            for names, tensor in _named_tensors(model)
            if (base := original(names[0])) is not None
        ]
        readers = local()
        with ThreadPoolExecutor(READERS) as pool:
            for done in [pool.submit(_fill, parts, tensor, readers) for parts, tensor in wanted]:
                done.result()

    def read(self, name: str, offsets: tuple[int, ...], into: torch.Tensor, reader: BoxReader) -> None:
        """Read a box of a parameter, cast to the dtype of ``into``.

        Args:
            name: of the parameter in the base model.
            offsets: first index of the box in each dimension.
            into: memory of the shape of the box.
            reader: of this thread.
        """
        for part in self._parts[name]:
            _fill_overlap(part, offsets, into, reader)


def local_boxes(tensor: torch.Tensor) -> Iterator[tuple[tuple[int, ...], torch.Tensor]]:
    """Offsets and memory of what this rank holds of a tensor."""
    if not isinstance(tensor, DTensor):
        yield (0,) * tensor.dim(), tensor
        return
    values = tensor.to_local()
    for chunk in tensor.__create_chunk_list__():
        if tuple(chunk.sizes) != tuple(values.shape):
            raise NotImplementedError(f"shards of several boxes: {tensor.placements}")
        yield tuple(chunk.offsets), values


def _fill(parts: Sequence[Part], tensor: torch.Tensor, readers: local) -> None:
    if not hasattr(readers, "own"):
        readers.own = BoxReader()
    with torch.no_grad():
        for offsets, values in local_boxes(tensor):
            for part in parts:
                _fill_overlap(part, offsets, values, readers.own)


def _fill_overlap(part: Part, offsets: tuple[int, ...], values: torch.Tensor, reader: BoxReader) -> None:
    """Read what ``part`` has of the box at ``offsets`` with the memory ``values``."""
    inside, wanted = [], []
    for at, size, begin, length in zip(offsets, values.shape, part.offsets, part.stored.shape, strict=True):
        first, end = max(at, begin), min(at + size, begin + length)
        if first >= end:
            return
        inside.append(slice(first - at, end - at))
        wanted.append(first - begin)
    reader.read(part.stored, tuple(wanted), values[tuple(inside)])


def _named_tensors(model: nn.Module) -> Iterator[tuple[list[str], torch.Tensor]]:
    """Every parameter and persistent buffer once, with all its names."""
    names: dict[int, list[str]] = {}
    tensors: dict[int, torch.Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
        tensors[id(tensor)] = tensor
    yield from ((names[key], tensor) for key, tensor in tensors.items())


def _equal(one: Tensor, other: Tensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return all(torch.equal(a, b) for a, b in zip(read_pieces(one), read_pieces(other), strict=True))


def _some(found: list[str]) -> str:
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(found[:3]) + more
