"""Loss on held-out data: the mean over tokens, however the documents fall into batches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from skills_pipe.training.backends.base import Backend
from skills_pipe.training.config import TrainingConfig
from skills_pipe.training.data.batches import BatchSettings, split_batch
from skills_pipe.training.data.dataset import SftDataset
from skills_pipe.training.data.from_config import batch_settings
from skills_pipe.training.distributed import World


@dataclass(frozen=True, kw_only=True)
class ValidationLosses:
    """Mean cross entropy over supervised tokens, in nats.

    Attributes:
        overall: over those of all datasets.
        by_name: of each dataset, where there are several.
    """

    overall: float
    by_name: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What to validate on.

    Attributes:
        datasets: held-out documents by the name of their dataset; of each they are taken in their order.
        batch_size: documents of one batch, over all ranks.
        max_batches: batches of one validation of one dataset; 0 for all.
        batches: how documents become microbatches.
    """

    datasets: Mapping[str, SftDataset]
    batch_size: int
    max_batches: int
    batches: BatchSettings

    @classmethod
    def of(cls, config: TrainingConfig, datasets: Mapping[str, SftDataset]) -> Validation:
        """The validation on these datasets that a configuration asks for."""
        return cls(
            datasets=datasets,
            batch_size=config.sft.val_global_batch_size,
            max_batches=config.sft.val_batches,
            batches=replace(
                batch_settings(config), micro_batch_size=config.sft.val_micro_batch_size, largest_first=False
            ),
        )

    @property
    def fingerprint(self) -> str:
        """Of the documents of one validation: losses on others do not compare."""
        chosen = f"{self.max_batches} of {self.batch_size}" if self.max_batches else "all"
        parts = [dataset.fingerprint for dataset in self.datasets.values()]
        return hashlib.sha256("\n".join([*parts, chosen]).encode()).hexdigest()

    @property
    def tokens(self) -> int:
        """Tokens of one validation, over all ranks."""
        return sum(
            int(dataset.lengths[batch].sum()) for dataset in self.datasets.values() for batch in self._chosen(dataset)
        )

    def losses(self, backend: Backend, world: World) -> ValidationLosses:
        """Losses of the model as it is, the same on every rank."""
        sums = {name: self._sum(dataset, backend, world) for name, dataset in self.datasets.items()}
        total, targets = (sum(column) for column in zip(*sums.values(), strict=True))
        each = {name: loss / (tokens or 1) for name, (loss, tokens) in sums.items()}
        return ValidationLosses(overall=total / (targets or 1), by_name=each if len(each) > 1 else {})

    def _sum(self, dataset: SftDataset, backend: Backend, world: World) -> tuple[float, float]:
        """Summed loss of a dataset, and what it is to be divided by."""
        total, targets = 0.0, 0.0
        for batch in self._chosen(dataset):
            mine = split_batch(dataset, batch, self.batches, world.data_rank, world.data_size)
            total += backend.evaluate(mine.microbatches)
            targets += mine.global_weight
        return total, targets

    def _chosen(self, dataset: SftDataset) -> list[np.ndarray]:
        order = np.arange(len(dataset))
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        return batches[: self.max_batches] if self.max_batches > 0 else batches
