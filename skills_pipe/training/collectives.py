"""Tensors of several ranks put one behind the other, and taken apart again: by one name in every version of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch import Tensor


def collected(own: Tensor, group: dist.ProcessGroup) -> Tensor:
    """What all ranks have, in their order: ``[ranks * n, ...]`` of ``[n, ...]`` each."""
    whole = own.new_empty(own.shape[0] * group.size(), *own.shape[1:])
    _GATHER(whole, own.contiguous(), group=group)
    return whole


def summed_part(whole: Tensor, group: dist.ProcessGroup) -> Tensor:
    """This rank's part ``[n, ...]`` of the sum over all ranks of ``[ranks * n, ...]``."""
    part = whole.new_empty(whole.shape[0] // group.size(), *whole.shape[1:])
    _SUM(part, whole.contiguous(), group=group)
    return part


def _newest(*names: str) -> Callable[..., Any]:
    return next(function for name in names if (function := getattr(dist, name, None)) is not None)


# The older names are deprecated from torch 2.13 on, which tells users so.
_GATHER = _newest("all_gather_single", "all_gather_into_tensor")
_SUM = _newest("reduce_scatter_single", "reduce_scatter_tensor")
