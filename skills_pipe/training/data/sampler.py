"""Which samples make up each global batch: a pure function of seed, epoch and position."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from skills_pipe.errors import ConfigError, DataError

_BATCHES_IN_BUCKET: Final = 64
"""Batches whose samples are sorted together: enough for similar lengths, few enough for other batches each epoch."""


@dataclass(frozen=True)
class ByLength:
    """An order that follows the lengths of the samples.

    Attributes:
        order: sorted: shortest first, the same in each epoch; bucketed: batches of samples of similar length.
        lengths: int64 [samples].
    """

    order: Literal["sorted", "bucketed"]
    lengths: NDArray[np.int64]


class BatchSampler:
    """Global batches in a fixed order that depends on nothing but its arguments.

    There is no state to save: a resumed job asks for the batch of its next step. Ranks share the same order, so their
    number may change between jobs. Each epoch has an order of its own and leaves out the samples at its end that do
    not fill a batch.

    Args:
        num_samples: documents of the data set.
        batch_size: documents of one global batch.
        seed: seed of the order.
        shuffle: False keeps the order of the data set in every epoch.
        by_length: order by length; ``shuffle`` then says in which order batches come that are bucketed.

    Raises:
        DataError: the data set is smaller than one global batch.
        ConfigError: the seed does not fit into 32 bits.
    """

    def __init__(
        self, num_samples: int, batch_size: int, *, seed: int, shuffle: bool = True, by_length: ByLength | None = None
    ) -> None:
        if num_samples < batch_size:
            raise DataError(
                f"the {num_samples} training samples do not fill one global batch of {batch_size}",
                where="policy.train_global_batch_size",
                fix=f"lower it to {num_samples} or less, or add data" if num_samples else "add data",
            )
        if not 0 <= seed < 2**32:
            raise ConfigError(
                f"the seed {seed} is not between 0 and 2^32 - 1", where="sft.seed", fix="choose a smaller one"
            )
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.by_length = by_length
        self._order = lru_cache(maxsize=2)(self._order_of_epoch)

    @property
    def steps_per_epoch(self) -> int:
        """Full global batches in one epoch."""
        return self.num_samples // self.batch_size

    @property
    def never_trained(self) -> str | None:
        """Which samples fill no batch in any epoch; None where they are others in each."""
        one_stretch = self.num_samples <= self.batch_size * _BATCHES_IN_BUCKET
        if self.by_length is not None and (self.by_length.order == "sorted" or one_stretch):
            return "the longest"
        if self.shuffle:
            return None
        return "the last" if self.by_length is None else "the same"

    def epoch(self, step: int) -> int:
        """Epoch, from 0, that the batch of ``step`` belongs to."""
        return step // self.steps_per_epoch

    def batch(self, step: int) -> NDArray[np.int64]:
        """Indices into the data set of the global batch of ``step``, counted from 0 over all epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return self._order(epoch)[position * self.batch_size : (position + 1) * self.batch_size]

    def fingerprint(self, samples: str) -> str:
        """Of the order and of ``samples``, the fingerprint of what is put in order; theirs alone for the usual order.

        The seed is no part of it: a checkpoint names that by itself.
        """
        kind = self.by_length.order if self.by_length is not None else None
        if self.shuffle and kind is None:
            return samples
        return hashlib.sha256(f"{samples} {self.shuffle} {kind}".encode()).hexdigest()

    def _order_of_epoch(self, epoch: int) -> NDArray[np.int64]:
        # RandomState, not Generator: numpy promises its stream for ever, so a resumed run may use a newer numpy.
        random = np.random.RandomState([self.seed, epoch])
        if self.by_length is not None and self.by_length.order == "sorted":
            return np.argsort(self.by_length.lengths, kind="stable")
        order = random.permutation(self.num_samples) if self.shuffle else np.arange(self.num_samples)
        return order if self.by_length is None else self._bucketed(order, self.by_length.lengths, random)

    def _bucketed(
        self, order: NDArray[np.int64], lengths: NDArray[np.int64], random: np.random.RandomState
    ) -> NDArray[np.int64]:
        """The same samples, sorted within stretches of many batches, and the batches in random order again."""
        size = self.batch_size * _BATCHES_IN_BUCKET
        stretches = [order[start : start + size] for start in range(0, len(order), size)]
        near = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in stretches])
        full = self.steps_per_epoch * self.batch_size
        batches = near[:full].reshape(-1, self.batch_size)
        if self.shuffle:
            batches = batches[random.permutation(len(batches))]
        return np.concatenate([batches.reshape(-1), near[full:]])
