"""Products whose outputs are those of several matrices, one behind the other, of each of which every rank has its part.

Each rank keeps consecutive rows of the whole weight, as of any other layer, so that FSDP2, the optimizer and
checkpoints need not know. What these rows give is not what the rank's heads and neurons need: outputs travel to the
ranks that need them, as many bytes as a rank has of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PreTrainedConfig

from skills_pipe.training.backends.fsdp.tensor_parallel.collectives import TensorGroup
from skills_pipe.training.backends.fsdp.tensor_parallel.layers import ColumnLinear

Piece = tuple[int, int]
"""Consecutive outputs: the first, and the one behind the last."""


@dataclass(frozen=True, kw_only=True)
class Routes:
    """Which outputs of this rank other ranks need.

    Attributes:
        sent: for each rank the pieces of what this rank computes, counted from its first output.
        received: for each rank how many outputs come from it; one behind the other they are in the order of the whole.
    """

    sent: tuple[tuple[Piece, ...], ...]
    received: tuple[int, ...]

    @classmethod
    def of(cls, sections: tuple[int, ...], rank: int, ranks: int) -> Routes:
        """Of outputs in ``sections``, of each of which rank r needs the r-th part; ``ranks`` divides them all."""
        each = sum(sections) // ranks
        return cls(
            sent=tuple(
                tuple((start - rank * each, end - rank * each) for start, end in _needed(sections, to, ranks, rank))
                for to in range(ranks)
            ),
            received=tuple(
                sum(end - start for start, end in _needed(sections, rank, ranks, source)) for source in range(ranks)
            ),
        )


class FusedLinear(ColumnLinear):
    """A linear layer of which each rank computes consecutive outputs, and gets its part of each section of them."""

    routes: Routes

    def sections(self, config: PreTrainedConfig) -> tuple[int, ...]:
        """How many outputs each of the matrices has, in the whole model."""
        raise NotImplementedError

    def arrange(self, config: PreTrainedConfig) -> None:
        """Called once, with the configuration of the whole model."""
        self.routes = Routes.of(self.sections(config), self.tensor_group.rank, self.tensor_group.size)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[1, tokens, inputs]`` to ``[1, tokens, outputs / size]``: this rank's part of each section."""
        arrived: Tensor = _Travel.apply(super().forward(hidden)[0], self.routes, self.tensor_group.group)
        return arrived[None]


class QueryKeyValueLinear(FusedLinear):
    """Queries, keys and values of all heads."""

    def sections(self, config: PreTrainedConfig) -> tuple[int, ...]:
        """Queries, keys, values."""
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        width = self.out_features // (heads + 2 * kv_heads)
        return heads * width, kv_heads * width, kv_heads * width


class GateUpLinear(FusedLinear):
    """Both branches of an MLP."""

    def sections(self, config: PreTrainedConfig) -> tuple[int, ...]:
        """The gate, and what it is for."""
        return self.out_features // 2, self.out_features // 2


class FusedAttention(nn.Module):
    """Mixed into an attention that counts heads to find queries, keys and values in one product."""

    tensor_group: TensorGroup
    num_key_value_heads: int

    def arrange(self, config: PreTrainedConfig) -> None:
        """Called once, with the configuration of the whole model, which stays as it is."""
        self.config = _OwnHeads(config, self.tensor_group.size)
        self.num_key_value_heads = config.num_key_value_heads // self.tensor_group.size


class _OwnHeads:
    """A configuration in which there are those heads only that one rank has."""

    def __init__(self, config: PreTrainedConfig, ranks: int) -> None:
        self._config = config
        self.num_attention_heads = config.num_attention_heads // ranks

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_config"), name)


def _needed(sections: tuple[int, ...], by: int, ranks: int, source: int) -> list[Piece]:
    """What rank ``by`` needs of what rank ``source`` computes, counted from the first output of all."""
    ends = [0, *accumulate(sections)]
    each = ends[-1] // ranks
    first, last = source * each, (source + 1) * each
    wanted = [
        (start + by * (end - start) // ranks, start + (by + 1) * (end - start) // ranks)
        for start, end in pairwise(ends)
    ]
    overlaps = [(max(start, first), min(end, last)) for start, end in wanted]
    return [(start, end) for start, end in overlaps if start < end]


class _Travel(torch.autograd.Function):
    """Outputs ``[tokens, own]`` to where they are needed; gradients go back."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, routes: Routes, group: dist.ProcessGroup) -> Tensor:
        ctx.routes, ctx.group, ctx.own = routes, group, outputs.shape[1]
        nothing = outputs[:, :0]
        parts = [torch.cat([nothing, *(outputs[:, start:end] for start, end in each)], dim=1) for each in routes.sent]
        return torch.cat(_exchanged(parts, routes.received, group), dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        counts = [sum(end - start for start, end in pieces) for pieces in ctx.routes.sent]
        parts = _exchanged(gradient.split(ctx.routes.received, dim=1), counts, ctx.group)
        own = gradient.new_empty(gradient.shape[0], ctx.own)
        for pieces, part in zip(ctx.routes.sent, parts, strict=True):
            widths = [end - start for start, end in pieces]
            for (start, end), columns in zip(pieces, part.split(widths, dim=1), strict=True):
                own[:, start:end] = columns
        return own, None, None


def _exchanged(parts: Sequence[Tensor], counts: Sequence[int], group: dist.ProcessGroup) -> list[Tensor]:
    """What each rank has for this one, ``[tokens, count]``, for what this one has for it, ``[tokens, n]``."""
    tokens = parts[0].shape[0]
    sent = torch.cat([part.reshape(-1) for part in parts])
    sizes = [tokens * count for count in counts]
    arrived = sent.new_empty(sum(sizes))
    dist.all_to_all_single(arrived, sent, sizes, [part.numel() for part in parts], group=group)
    return [piece.view(tokens, count) for piece, count in zip(arrived.split(sizes), counts, strict=True)]
