"""Which samples make up each global batch: a pure function of seed, epoch and position."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from skills_pipe.errors import ConfigError, DataError


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

    Raises:
        DataError: the data set is smaller than one global batch.
        ConfigError: the seed does not fit into 32 bits.
    """

    def __init__(self, num_samples: int, batch_size: int, *, seed: int, shuffle: bool = True) -> None:
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
        self._order = lru_cache(maxsize=2)(self._order_of_epoch)

    @property
    def steps_per_epoch(self) -> int:
        """Full global batches in one epoch."""
        return self.num_samples // self.batch_size

    def epoch(self, step: int) -> int:
        """Epoch, from 0, that the batch of ``step`` belongs to."""
        return step // self.steps_per_epoch

    def batch(self, step: int) -> NDArray[np.int64]:
        """Indices into the data set of the global batch of ``step``, counted from 0 over all epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return self._order(epoch)[position * self.batch_size : (position + 1) * self.batch_size]

    def _order_of_epoch(self, epoch: int) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(self.num_samples)
        # RandomState, not Generator: numpy promises its stream for ever, so a resumed run may use a newer numpy.
        return np.random.RandomState([self.seed, epoch]).permutation(self.num_samples)
