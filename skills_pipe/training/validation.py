"""Loss on held-out data: the mean over tokens, however the documents fall into batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skills_pipe.training.backends.base import Backend
from skills_pipe.training.data.batches import BatchSettings, split_batch
from skills_pipe.training.data.dataset import SftDataset
from skills_pipe.training.distributed import World


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What to validate on.

    Attributes:
        dataset: held-out documents, taken in their order.
        batch_size: documents of one batch, over all ranks.
        max_batches: batches of one validation; 0 for all.
        batches: how documents become microbatches.
    """

    dataset: SftDataset
    batch_size: int
    max_batches: int
    batches: BatchSettings

    @property
    def tokens(self) -> int:
        """Tokens of one validation, over all ranks."""
        return sum(int(self.dataset.lengths[batch].sum()) for batch in self._chosen())

    def loss(self, backend: Backend, world: World) -> float:
        """Mean cross entropy over the supervised tokens; the same on every rank."""
        total, targets = 0.0, 0
        for batch in self._chosen():
            mine = split_batch(self.dataset, batch, self.batches, world.rank, world.size)
            total += backend.evaluate(mine.microbatches)
            targets += mine.global_targets
        return total / max(1, targets)

    def _chosen(self) -> list[np.ndarray]:
        order = np.arange(len(self.dataset))
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        return batches[: self.max_batches] if self.max_batches > 0 else batches
