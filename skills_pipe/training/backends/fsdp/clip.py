"""The global norm of gradients, and clipping by it, for parameters that may lie on several meshes."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def clip_gradients(parameters: Iterable[torch.nn.Parameter], max_norm: float | None) -> float:
    """Scale all gradients so that their global L2 norm is at most ``max_norm``; return the norm before that.

    Plain tensors and DTensors of different meshes may be mixed (torch's own function takes one kind only). None or 0
    clips nothing. A norm that is not finite scales nothing.
    """
    groups: dict[object, list[Tensor]] = {}
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None:
            groups.setdefault(gradient.device_mesh if isinstance(gradient, DTensor) else None, []).append(gradient)
    if not groups:
        return 0.0
    norms = [_whole(torch.nn.utils.get_total_norm(group)) for group in groups.values()]
    norm = float(torch.linalg.vector_norm(torch.stack(norms)))
    # The small term is torch's, so that clipped gradients equal those of clip_grad_norm_.
    factor = max_norm / (norm + 1e-6) if max_norm else 1.0
    if factor < 1.0 and math.isfinite(norm):
        for group in groups.values():
            torch._foreach_mul_(group, factor)
    return norm


def _whole(norm: Tensor) -> Tensor:
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
