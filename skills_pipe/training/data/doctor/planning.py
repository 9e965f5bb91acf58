"""What lengths and batches would cost: how full microbatches are at several limits, and how long an epoch is."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from skills_pipe.training.config import TrainingConfig
from skills_pipe.training.config.schedule import total_steps
from skills_pipe.training.data.pack import pack
from skills_pipe.training.data.sampler import BatchSampler

ENOUGH: Final = 0.995
"""Share of documents that a suggested limit holds whole."""

_ROUND: Final = 64
_BATCHES: Final = 50
"""Global batches that are packed: more of them change the average by less than it is rounded to."""


@dataclass(frozen=True, kw_only=True)
class LengthPlan:
    """One limit of the length, and what it would mean.

    Attributes:
        limit: most tokens of a document.
        longer: share of documents that are longer.
        lost: share of tokens that would not be seen: all of a longer document where these are dropped, what is beyond
            the limit where they are shortened.
        packed: tokens per slot when the documents are packed into microbatches of that size, those of each global batch
            by themselves unless ``policy.sequence_packing.scope`` is ``dataset``;
            None where no document is left.
    """

    limit: int
    longer: float
    lost: float
    packed: float | None


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """One epoch.

    Attributes:
        batch_size: units of a global batch.
        documents: documents of all rows; estimated where only some were read.
        tokens: tokens of those.
        units: what batches consist of: these documents, or the rows that they are packed into once for all batches.
        steps: full global batches in them.
        tokens_per_step: on average.
        planned_steps: steps of the whole training; None where the data is too small for one.
    """

    batch_size: int
    documents: int
    tokens: int
    units: int
    steps: int
    tokens_per_step: int
    planned_steps: int | None

    @property
    def unit(self) -> str:
        """What the units are called."""
        return "documents" if self.units == self.documents else "packed rows"

    @property
    def left_over(self) -> int:
        """Units that fill no global batch at the end of an epoch; none of them is trained on in it."""
        return self.units - self.steps * self.batch_size


def length_plans(lengths: NDArray[np.int64], limits: Sequence[int], config: TrainingConfig) -> list[LengthPlan]:
    """What each limit would mean for documents of these lengths, in tokens without a limit."""
    return [_length_plan(lengths, limit, config) for limit in sorted(set(limits))]


def usual_limits(lengths: NDArray[np.int64], configured: int, positions: int | None = None) -> list[int]:
    """Limits worth a look: the configured one, the suggested one, and powers of two around the lengths.

    None but the configured one is beyond the ``positions`` of the model.
    """
    if not len(lengths):
        return [configured]
    low, high = int(np.percentile(lengths, 50)), int(lengths.max())
    powers = [1 << power for power in range(6, 21) if low <= 1 << power < 2 * high]
    within = [power for power in powers[-4:] if positions is None or power <= positions]
    return sorted({configured, suggested_limit(lengths, positions), *within})


def suggested_limit(lengths: NDArray[np.int64], positions: int | None = None) -> int:
    """The least limit, rounded up to 64 tokens, that holds nearly all documents whole, or the model's positions."""
    enough = int(np.quantile(lengths, ENOUGH, method="inverted_cdf"))
    rounded = -(-enough // _ROUND) * _ROUND
    return rounded if positions is None else min(rounded, positions)


def epoch_plan(documents: int, tokens: int, units: int, config: TrainingConfig) -> EpochPlan:
    """Length of an epoch of so many documents and tokens; ``units``: see :func:`epoch_units`."""
    size = config.policy.train_global_batch_size
    steps = units // size
    return EpochPlan(
        batch_size=size,
        documents=documents,
        tokens=tokens,
        units=units,
        steps=steps,
        tokens_per_step=round(tokens / units * size) if units else 0,
        planned_steps=total_steps(config, units) if steps else None,
    )


def epoch_units(documents: int, lengths: NDArray[np.int64], config: TrainingConfig) -> int:
    """What batches consist of: the documents of an epoch, or rows that are packed over all of them.

    Rows are estimated where ``lengths`` are those of some of the documents only.

    Raises:
        DataError: a document is longer than a row.
    """
    packing = config.policy.sequence_packing
    if not packs_whole(config) or not len(lengths):
        return documents
    rng = random.Random(config.sft.seed)
    return round(
        len(pack(lengths.tolist(), packing.train_mb_tokens, packing.algorithm, rng=rng)) * documents / len(lengths)
    )


def packs_whole(config: TrainingConfig) -> bool:
    """Whether rows are packed once over all documents."""
    return config.policy.sequence_packing.enabled and config.policy.sequence_packing.scope == "dataset"


def _length_plan(lengths: NDArray[np.int64], limit: int, config: TrainingConfig) -> LengthPlan:
    longer = lengths > limit
    shortened = config.data.overlong == "truncate"
    kept = np.minimum(lengths, limit) if shortened else lengths[~longer]
    total = int(lengths.sum())
    return LengthPlan(
        limit=limit,
        longer=float(longer.mean()) if len(lengths) else 0.0,
        lost=1 - int(kept.sum()) / total if total else 0.0,
        packed=_packed(kept, limit, config),
    )


def _packed(lengths: NDArray[np.int64], limit: int, config: TrainingConfig) -> float | None:
    tokens = slots = 0
    for batch in [lengths] if packs_whole(config) and len(lengths) else _batches(lengths, config):
        bins = pack(batch.tolist(), limit, config.policy.sequence_packing.algorithm)
        tokens += int(batch.sum())
        slots += len(bins) * limit
    return tokens / slots if slots else None


def _batches(lengths: NDArray[np.int64], config: TrainingConfig) -> list[NDArray[np.int64]]:
    """The first global batches of training; one of all documents where they don't fill one."""
    if not len(lengths):
        return []
    size = min(config.policy.train_global_batch_size, len(lengths))
    sampler = BatchSampler(len(lengths), size, seed=config.sft.seed, shuffle=config.data.shuffle)
    return [lengths[sampler.batch(step)] for step in range(min(sampler.steps_per_epoch, _BATCHES))]
