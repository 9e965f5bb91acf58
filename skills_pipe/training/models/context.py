"""Context parallelism: neighbouring ranks share every row, each with some of its tokens.

The row is cut into twice as many pieces as there are ranks. Rank r has piece r and, counted from the end, piece r
again: a token has the more to look at the later it comes, so that all ranks have the same work (Llama 3 report,
section 3.3.2). Only attention looks beyond a rank's own tokens: for it the keys and values of all ranks are
collected, layer by layer, and their gradients are summed up on the way back. Documents need not end where pieces do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from skills_pipe.training.collectives import collected


@dataclass(frozen=True, kw_only=True, eq=False)
class Stretch:
    """Consecutive tokens of a row that look, and those that they look at: from the start of the first one's document.

    Attributes:
        begin: the first token that looks.
        end: behind the last token that looks; none of them looks at later ones.
        first: the first token that is looked at.
        queries: how many tokens of each document look.
        keys: how many of its tokens are looked at; its last ``queries`` are those that look.
        query_offsets: int32 ``[len(queries) + 1]``, where the tokens of each document start among those that look.
        key_offsets: int32 ``[len(keys) + 1]``, the same among those that are looked at.
    """

    begin: int
    end: int
    first: int
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    query_offsets: Tensor
    key_offsets: Tensor

    @classmethod
    def of(cls, lengths: tuple[int, ...], begin: int, end: int, device: torch.device) -> Stretch:
        """The tokens from ``begin`` until ``end`` of a row of documents of these ``lengths``; at least one token."""
        queries, keys, first, start = [], [], begin, 0
        for length in lengths:
            stop = start + length
            if start < end and stop > begin:
                first = min(first, start)
                queries.append(min(stop, end) - max(start, begin))
                keys.append(min(stop, end) - start)
            start = stop
        return cls(
            begin=begin,
            end=end,
            first=first,
            queries=tuple(queries),
            keys=tuple(keys),
            query_offsets=_offsets(queries, device),
            key_offsets=_offsets(keys, device),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Share:
    """What this rank has of one row.

    Attributes:
        group: the ranks that share the row.
        stretches: the two pieces of this rank.
    """

    group: dist.ProcessGroup
    stretches: tuple[Stretch, ...]

    def own(self, row: Tensor) -> Tensor:
        """This rank's tokens ``[1, T / ranks, ...]`` of ``[1, T, ...]``."""
        return torch.cat([row[:, stretch.begin : stretch.end] for stretch in self.stretches], dim=1)

    def of_all(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all ranks in the order of the row: of ``[1, heads, T / ranks, width]`` each
        ``[1, heads, T, width]``.

        The gradients that come back are the sums of what all ranks have of them.
        """
        # In one message, tokens first: then what ranks send only has to be put one behind the other.
        own = torch.cat([key[0].transpose(0, 1), value[0].transpose(0, 1)], dim=1)
        pieces = collected(own, self.group).unflatten(0, (self.group.size(), 2, -1))
        # Rank r has sent the pieces r and 2 * ranks - 1 - r.
        ordered = torch.cat([pieces[:, 0], pieces[:, 1].flip(0)]).flatten(0, 1)
        keys, values = ordered.transpose(0, 1).unsqueeze(0).split([key.shape[1], value.shape[1]], dim=1)
        return keys, values


@dataclass(frozen=True, kw_only=True, eq=False)
class ContextGroup:
    """The ranks that share each row; they are given the same rows.

    Attributes:
        group: of this process, for collectives.
    """

    group: dist.ProcessGroup

    def share(self, lengths: tuple[int, ...], device: torch.device) -> Share:
        """What this rank has of a row of documents of these ``lengths``.

        Raises:
            ValueError: twice the number of ranks does not divide the number of tokens.
        """
        tokens, pieces, rank = sum(lengths), 2 * self.group.size(), self.group.rank()
        if tokens % pieces:
            raise ValueError(f"a row of {tokens} tokens cannot be cut into {pieces} pieces")
        size = tokens // pieces
        begins = (rank * size, (pieces - 1 - rank) * size)
        return Share(
            group=self.group, stretches=tuple(Stretch.of(lengths, begin, begin + size, device) for begin in begins)
        )


def _offsets(lengths: list[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)
