"""Tokens on their way to the ranks that have their experts, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from skills_pipe.training.backends.fsdp.tensor_parallel.collectives import TensorGroup


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertGroup:
    """The ranks that share the experts: rank r of n has the r-th n-th of them.

    Attributes:
        mesh: all of them, one dimension.
        exchange: those of them between which tokens travel, as many ranks apart as ``tensor`` has. None: all of them
            have the same tokens.
        tensor: those of them that have the same tokens, neighbours. None: each has tokens of its own.
    """

    mesh: DeviceMesh
    exchange: DeviceMesh | None
    tensor: TensorGroup | None = None

    @property
    def group(self) -> dist.ProcessGroup:
        """For collectives between ranks that exchange tokens."""
        if self.exchange is None:
            raise ValueError("no tokens are exchanged")
        return self.exchange.get_group()

    @property
    def size(self) -> int:
        """Number of ranks that exchange tokens."""
        return self.exchange.size() if self.exchange is not None else 1

    def own(self, chosen: Tensor, each: int) -> tuple[Tensor, Tensor]:
        """Which choices are for experts of this rank, or of those that it exchanges tokens with.

        Args:
            chosen: int64, experts out of all.
            each: how many each rank has.

        Returns:
            Of the form of ``chosen``: whether they are, and the experts' numbers among those.
        """
        ranks, rank = (self.tensor.size, self.tensor.rank) if self.tensor is not None else (1, 0)
        having = chosen // each
        return having % ranks == rank, having // ranks * each + chosen % each


@dataclass(frozen=True, kw_only=True, eq=False)
class Dispatch:
    """Which copies of tokens go where; a token has a copy for each of its experts.

    Attributes:
        order: int64 ``[copies]``: the copies of this rank, those for the first expert first.
        sent: how many copies each rank gets of this one.
        received: how many copies this rank gets of each.
        experts: int64 ``[sum(received)]``: which of this rank's experts each copy that arrives is for.
        group: the ranks.
    """

    order: Tensor
    sent: list[int]
    received: list[int]
    experts: Tensor
    group: dist.ProcessGroup

    @classmethod
    def of(cls, chosen: Tensor, experts: int, group: ExpertGroup) -> Dispatch:
        """Tell the other ranks what they will get.

        Args:
            chosen: int64 ``[copies]``, the expert of each.
            experts: how many there are on the ranks that exchange tokens.
            group: the ranks that share them.
        """
        mine = torch.bincount(chosen, minlength=experts)
        # Row r: how many copies come from rank r for each expert of this rank.
        arriving = torch.empty_like(mine)
        dist.all_to_all_single(arriving, mine, group=group.group)
        own = torch.arange(experts // group.size, device=chosen.device).repeat(group.size)
        counts = torch.stack([mine, arriving]).view(2, group.size, -1).sum(dim=2)
        # The only wait for the device: the sizes of messages are the host's.
        sent, received = counts.tolist()
        return cls(
            order=chosen.argsort(stable=True),
            sent=sent,
            received=received,
            experts=own.repeat_interleave(arriving),
            group=group.group,
        )

    def go(self, copies: Tensor) -> Tensor:
        """``[copies, width]`` in this rank's order to the copies ``[sum(received), width]`` that arrive here."""
        arrived: Tensor = _Exchange.apply(copies[self.order], self.sent, self.received, self.group)
        return arrived

    def come_back(self, computed: Tensor) -> Tensor:
        """What became of the copies that arrived here, to ``[copies, width]`` of this rank's in its order."""
        returned = _Exchange.apply(computed, self.received, self.sent, self.group)
        places = torch.empty_like(self.order)
        places[self.order] = torch.arange(len(places), device=places.device)
        back: Tensor = returned[places]
        return back


class _Exchange(torch.autograd.Function):
    """The first ``sent[0]`` rows to the first rank, the next to the second; gradients go the other way."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return _exchanged(rows, sent, received, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _exchanged(gradient, ctx.received, ctx.sent, ctx.group), None, None, None


def _exchanged(rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    arrived = rows.new_empty(sum(received), rows.shape[1])
    dist.all_to_all_single(arrived, rows.contiguous(), received, sent, group=group)
    return arrived
