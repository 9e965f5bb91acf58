"""Models without weights: built on the meta device, given memory only after they were sharded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Modules that are made inside this block have parameters without memory, and real buffers.

    Unlike ``torch.device("meta")``, which takes the memory of buffers too: what a constructor computes into them
    (rotary frequencies, embedding scales) is in no weight file and would be lost.
    """
    handle = register_module_parameter_registration_hook(_to_meta)
    try:
        yield
    finally:
        handle.remove()


def materialise(module: nn.Module, device: torch.device, *, storage: torch.device | None = None) -> None:
    """Give every parameter memory, with undefined values, and move buffers to ``device``, where it computes.

    Sharded parameters get the memory of their shard only. Tied parameters stay tied.

    Args:
        module: with parameters on the meta device; others are moved.
        device: of buffers, such as rotary frequencies.
        storage: of parameters; None: ``device`` too.
    """
    places = list(_tied_places(module))

    def placed(tensor: torch.Tensor) -> torch.Tensor:
        own = storage or device if isinstance(tensor, nn.Parameter) else device
        return torch.empty_like(tensor, device=own) if tensor.is_meta else tensor.to(own)

    module._apply(placed)
    for (first, name), *others in places:
        for owner, other_name in others:
            setattr(owner, other_name, getattr(first, name))


def _to_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
    """Called for each parameter as it is registered, before anything is written into its memory."""
    if parameter is None or parameter.is_meta:
        return parameter
    return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)


def _tied_places(module: nn.Module) -> Iterator[list[tuple[nn.Module, str]]]:
    """Module and name of each parameter that has several, the first of them first."""
    places: dict[int, list[Any]] = {}
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                places.setdefault(id(parameter), []).append((owner, name))
    yield from (found for found in places.values() if len(found) > 1)
