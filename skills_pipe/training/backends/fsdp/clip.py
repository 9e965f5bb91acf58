"""The global norm of gradients, and clipping by it, for parameters that may lie on several meshes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

_Spread: TypeAlias = tuple[DeviceMesh, tuple[int, ...]] | None
"""Over which dimensions of which mesh a tensor is divided; None: it is whole."""


def clip_gradients(parameters: Iterable[torch.nn.Parameter], max_norm: float | None) -> float:
    """Scale all gradients so that their global L2 norm is at most ``max_norm``; return the norm before that.

    Plain tensors and DTensors of different meshes may be mixed (torch's own function takes one kind only). None or 0
    clips nothing. A norm that is not finite scales nothing. The norm is the same to the bit on all ranks.
    """
    groups: dict[_Spread, list[Tensor]] = {}
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None:
            own = gradient.to_local() if isinstance(gradient, DTensor) else gradient
            groups.setdefault(_spread(gradient), []).append(own)
    if not groups:
        return 0.0
    norms = [_over_ranks(torch.nn.utils.get_total_norm(group), spread) for spread, group in groups.items()]
    whole = torch.linalg.vector_norm(torch.stack(norms))
    if any(spread is not None for spread in groups):
        # Groups of ranks may add in orders of their own (of sums over two dimensions torch warns of it); what several
        # ranks hold alike would drift apart, and they could judge a step differently. Through gloo, as all single
        # numbers: a GPU would need memory for a group of all ranks that nothing else uses.
        whole = whole.cpu()
        dist.broadcast(whole, src=0)
    norm = float(whole)
    # The small term is torch's, so that clipped gradients equal those of clip_grad_norm_.
    factor = max_norm / (norm + 1e-6) if max_norm else 1.0
    if factor < 1.0 and math.isfinite(norm):
        for group in groups.values():
            torch._foreach_mul_(group, factor)
    return norm


def _spread(gradient: Tensor) -> _Spread:
    if not isinstance(gradient, DTensor):
        return None
    if any(placement.is_partial() for placement in gradient.placements):
        raise RuntimeError("a gradient is left as a sum that was not made, whose parts tell nothing of its norm")
    return gradient.device_mesh, tuple(
        dimension for dimension, placement in enumerate(gradient.placements) if not placement.is_replicate()
    )


def _over_ranks(norm: Tensor, spread: _Spread) -> Tensor:
    """The norm of whole tensors, of that of this rank's parts of them."""
    if spread is None:
        return norm
    mesh, dimensions = spread
    square = norm.square()
    for dimension in dimensions:
        dist.all_reduce(square, group=mesh.get_group(dimension))
    return square.sqrt()
