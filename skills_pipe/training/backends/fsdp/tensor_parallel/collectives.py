"""What the ranks of a tensor parallel group exchange, and how gradients go back through it (Megatron's f and g).

Sequence parallelism (Korthikanti et al. 2022, section 4.2.2) replaces each sum by a sum of which every rank gets its
tokens, and each copy by a collection of all tokens: the same bytes on the wire, less to keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from skills_pipe.training.collectives import collected, summed_part


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorGroup:
    """The ranks that share each layer.

    Attributes:
        mesh: one dimension.
        sequence: whether the ranks share the tokens outside of attention and MLP; their number must divide that of
            the tokens.
    """

    mesh: DeviceMesh
    sequence: bool = False

    @property
    def group(self) -> dist.ProcessGroup:
        """For collectives."""
        return self.mesh.get_group()

    @property
    def rank(self) -> int:
        """Of this process, within the group."""
        return self.mesh.get_local_rank()

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.mesh.size()

    def enter(self, hidden: Tensor) -> Tensor:
        """Hidden states of all tokens for layers of which each rank has a part.

        Args:
            hidden: ``[1, tokens, width]``, the same on each rank; of some tokens with sequence parallelism.

        Returns:
            ``[1, all tokens, width]``.
        """
        if self.sequence:
            # With one row the tokens of all ranks lie one after the other.
            return collected(hidden[0], self.group)[None]
        entered: Tensor = _Copy.apply(hidden, self.group)
        return entered

    def leave(self, partial: Tensor) -> Tensor:
        """The sum of what the ranks computed with their parts.

        Args:
            partial: ``[1, all tokens, width]``.

        Returns:
            ``[1, tokens, width]``, the same on each rank; this rank's tokens with sequence parallelism.
        """
        if self.sequence:
            return summed_part(partial[0], self.group)[None]
        left: Tensor = _Sum.apply(partial, self.group)
        return left


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _summed(gradient, ctx.group), None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, partial: Tensor, group: dist.ProcessGroup) -> Tensor:
        return _summed(partial, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _summed(value: Tensor, group: dist.ProcessGroup) -> Tensor:
    # A copy: what autograd hands over may be in use elsewhere.
    total = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total
