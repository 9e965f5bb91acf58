"""Which stored tensors make up a parameter: most are one tensor of the same name, fused ones are several."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from skills_pipe.training.checkpoint.safetensors_file import Tensor

_EXPERTS = re.compile(r"(.*\.experts)\.(gate_up_proj|down_proj)")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A box of a parameter and the stored tensor that fills it.

    Attributes:
        offsets: first index of the box in each dimension of the parameter.
        stored: with as many dimensions as the parameter: those it lacks on disk are put in front, of size 1.
    """

    offsets: tuple[int, ...]
    stored: Tensor


def parts_of(name: str, shape: tuple[int, ...], stored: Mapping[str, Tensor], prefix: str) -> tuple[Part, ...]:
    """What a parameter is made of; empty when something of it is missing.

    Args:
        name: of the parameter in the model.
        shape: of the whole parameter.
        stored: what the files hold.
        prefix: of the inner model (``transformer`` in GPT-2), which old files leave out.
    """
    for stored_name in (name, name.removeprefix(f"{prefix}.")):
        if stored_name in stored:
            return (Part(offsets=(0,) * len(shape), stored=stored[stored_name]),)
    experts = _EXPERTS.fullmatch(name)
    if experts is None or len(shape) != 3:
        return ()
    wanted = list(_experts(experts[1], experts[2], shape))
    if not all(stored_name in stored for _, stored_name in wanted):
        return ()
    return tuple(Part(offsets=offsets, stored=_with_dimension(stored[found])) for offsets, found in wanted)


def _experts(module: str, name: str, shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], str]]:
    """Offsets and stored names of the matrices of all experts, which a model holds as one tensor."""
    for expert in range(shape[0]):
        if name == "down_proj":
            yield (expert, 0, 0), f"{module}.{expert}.down_proj.weight"
        else:
            yield (expert, 0, 0), f"{module}.{expert}.gate_proj.weight"
            yield (expert, shape[1] // 2, 0), f"{module}.{expert}.up_proj.weight"


def _with_dimension(tensor: Tensor) -> Tensor:
    return replace(tensor, shape=(1, *tensor.shape))


def matrices_of_experts(name: str, shape: tuple[int, ...]) -> list[tuple[str, tuple[int, int]]]:
    """Stored names and shapes of what a tensor of all experts consists of, in the order in which it holds them.

    Empty for any other tensor.
    """
    experts = _EXPERTS.fullmatch(name)
    if experts is None or len(shape) != 3:
        return []
    matrix = (shape[1] // (2 if experts[2] == "gate_up_proj" else 1), shape[2])
    return [(stored, matrix) for _, stored in _experts(experts[1], experts[2], shape)]


def is_whole(shape: tuple[int, ...], parts: tuple[Part, ...]) -> bool:
    """Whether the parts lie inside a parameter of ``shape`` and fill it."""
    inside = all(
        len(part.stored.shape) == len(shape)
        and all(
            start + size <= limit for start, size, limit in zip(part.offsets, part.stored.shape, shape, strict=True)
        )
        for part in parts
    )
    return inside and sum(math.prod(part.stored.shape) for part in parts) == math.prod(shape)
