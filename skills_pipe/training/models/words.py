"""The words of which a rank has the output layer: all of them, or its part where ranks share the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from skills_pipe.training.collectives import collected


@dataclass(frozen=True, kw_only=True, eq=False)
class Words:
    """Consecutive words.

    Attributes:
        first: id of the first of them.
        group: ranks of which each has as many words, in their order; None: this rank has all.
    """

    first: int = 0
    group: dist.ProcessGroup | None = None

    @classmethod
    def of(cls, weight: Tensor) -> tuple[Words, Tensor]:
        """Which words an output layer's weight ``[vocabulary, width]`` has here, and their rows as a plain tensor."""
        if not isinstance(weight, DTensor):
            return cls(), weight
        part = weight.to_local()
        mesh = weight.device_mesh
        return cls(first=mesh.get_local_rank() * part.shape[0], group=mesh.get_group()), part

    def compare(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The logarithm of the summed exponentials of all words' logits, and the logit of the target.

        Where ranks share the vocabulary each sends two numbers for a row, no logits.

        Args:
            logits: ``[rows, words]`` of these words.
            target: int64 ``[rows, 1]``, ids of any words.

        Returns:
            Both ``[rows, 1]``, the same on each rank.
        """
        normaliser = logits.logsumexp(dim=1, keepdim=True)
        if self.group is None:
            return normaliser, logits.gather(1, target)
        index, here = self._own(target, logits.shape[1])
        chosen = logits.gather(1, index).masked_fill(~here, 0.0)
        mine = torch.stack([normaliser, chosen])
        of_all = collected(mine[None], self.group)
        return of_all[:, 0].logsumexp(dim=0), of_all[:, 1].sum(dim=0)

    def subtract_targets(self, probabilities: Tensor, target: Tensor) -> None:
        """Take 1 from the probability of each row's target, in place; from nothing where another rank has it."""
        if self.group is None:
            probabilities.scatter_add_(1, target, probabilities.new_full(target.shape, -1.0))
            return
        index, here = self._own(target, probabilities.shape[1])
        probabilities.scatter_add_(1, index, -here.to(probabilities.dtype))

    def _own(self, target: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Places of the targets among these words, 0 for words that are not here, and which are."""
        index = target - self.first
        here = (index >= 0) & (index < count)
        return index.masked_fill(~here, 0), here
