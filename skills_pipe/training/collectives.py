"""Tensors of several ranks put one behind the other, and taken apart again; both know their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def collected(own: Tensor, group: dist.ProcessGroup) -> Tensor:
    """What all ranks have, in their order: ``[ranks * n, ...]`` of ``[n, ...]`` each."""
    whole: Tensor = _Collect.apply(own, group)
    return whole


def summed_part(whole: Tensor, group: dist.ProcessGroup) -> Tensor:
    """This rank's part ``[n, ...]`` of the sum over all ranks of ``[ranks * n, ...]``."""
    part: Tensor = _SumPart.apply(whole, group)
    return part


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _gather(own, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _sum_part(gradient, ctx.group), None


class _SumPart(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _sum_part(whole, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _gather(gradient, ctx.group), None


def _gather(own: Tensor, group: dist.ProcessGroup) -> Tensor:
    whole = own.new_empty(own.shape[0] * group.size(), *own.shape[1:])
    _GATHER(whole, own.contiguous(), group=group)
    return whole


def _sum_part(whole: Tensor, group: dist.ProcessGroup) -> Tensor:
    part = whole.new_empty(whole.shape[0] // group.size(), *whole.shape[1:])
    _SUM(part, whole.contiguous(), group=group)
    return part


def _newest(*names: str) -> Callable[..., Any]:
    return next(function for name in names if (function := getattr(dist, name, None)) is not None)


# The older names are deprecated from torch 2.13 on, which tells users so.
_GATHER = _newest("all_gather_single", "all_gather_into_tensor")
_SUM = _newest("reduce_scatter_single", "reduce_scatter_tensor")
