"""Microbatches: the documents of a global batch, flattened into rows of tensors and shared out among the ranks."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skills_pipe.training.data.dataset import SftDataset
from skills_pipe.training.data.dynamic import Budget, dynamic
from skills_pipe.training.data.pack import Bins, pack, spread
from skills_pipe.training.data.packs import Packs

IGNORE: Final = -100
"""Label of a position that is not trained; the value that torch's cross entropy ignores."""


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """How documents become microbatches.

    Attributes:
        capacity: most tokens of one packed microbatch.
        packing: pack by length; otherwise ``micro_batch_size`` documents in their order share a microbatch.
        algorithm: one of ``pack.ALGORITHMS``.
        micro_batch_size: documents of one microbatch without packing.
        largest_first: run the microbatches with the most tokens first, so that a lack of memory shows at once.
        seed: seed of the packing algorithms that shuffle.
        dynamic: group documents of similar length by this budget instead; ``packing`` is off.
        packs: rows that were packed over the whole data set; a batch then names rows, and not documents.
    """

    capacity: int
    packing: bool = True
    algorithm: str = "modified_first_fit_decreasing"
    micro_batch_size: int = 1
    largest_first: bool = False
    seed: int = 0
    dynamic: Budget | None = None
    packs: Packs | None = None

    def units(self, dataset: SftDataset) -> int:
        """What batches consist of: rows that are packed already, or documents."""
        return len(self.packs) if self.packs is not None else len(dataset)

    def documents(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """The documents of a global batch, in order."""
        if self.packs is None:
            return np.asarray(indices, dtype=np.int64)
        return np.array([document for row in self.packs.members(indices) for document in row], dtype=np.int64)

    def fingerprint(self, dataset: SftDataset) -> str:
        """Of all that the number of a unit stands for: the data set's own where units are documents."""
        if self.packs is None:
            return dataset.fingerprint
        return hashlib.sha256(f"{dataset.fingerprint} {self.packs.fingerprint}".encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Microbatch:
    """Documents side by side in one row without padding. T is the number of tokens, n the number of documents.

    Attributes:
        input_ids: int64 [1, T].
        position_ids: int64 [1, T], from 0 in each document.
        labels: int64 [1, T]; ``labels[0, t]`` is the token after ``t`` where that token is trained, else
            :data:`IGNORE`. The last token of a document never has a label.
        cu_seqlens: int32 [n + 1], where each document starts, and T.
        max_seqlen: tokens of the longest document.
        weights: float32 [1, T], factor of the loss of each label; None: all are 1.
        dummy: its one token is of no document.
    """

    input_ids: Tensor
    position_ids: Tensor
    labels: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    weights: Tensor | None = None
    dummy: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of the row."""
        return self.input_ids.shape[1]

    def to(self, device: torch.device | str) -> Microbatch:
        """The same microbatch on another device."""
        return Microbatch(
            input_ids=self.input_ids.to(device, non_blocking=True),
            position_ids=self.position_ids.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            cu_seqlens=self.cu_seqlens.to(device, non_blocking=True),
            max_seqlen=self.max_seqlen,
            weights=self.weights.to(device, non_blocking=True) if self.weights is not None else None,
            dummy=self.dummy,
        )


@dataclass(frozen=True, kw_only=True)
class RankBatch:
    """What one rank computes of a global batch, with the counts of the whole of it.

    Attributes:
        microbatches: of this rank; every rank has the same number.
        global_targets: trained tokens over all ranks.
        global_weight: sum of their weights, the divisor of the loss; without weights the number of trained tokens.
        global_tokens: tokens over all ranks.
        global_documents: documents over all ranks.
        lengths: tokens of each of these documents.
    """

    microbatches: list[Microbatch]
    global_targets: int
    global_weight: float
    global_tokens: int
    global_documents: int
    lengths: NDArray[np.int32] | NDArray[np.int64]


def split_batch(
    dataset: SftDataset, indices: Sequence[int] | NDArray[np.int64], settings: BatchSettings, rank: int, world: int
) -> RankBatch:
    """The microbatches of ``rank`` out of ``world`` for the global batch ``indices``.

    ``indices`` are documents, or rows where the settings have rows that are packed already.

    Microbatch i belongs to rank i modulo world. Where there are fewer documents than microbatches are needed for equal
    counts, a rank gets a dummy of one token and no label: it takes part in the collectives and adds nothing.

    Raises:
        DataError: a document is longer than the capacity.
    """
    rows = settings.packs.members(indices) if settings.packs is not None else None
    chosen = settings.documents(indices)
    lengths = dataset.lengths[chosen]
    bins = _bins(lengths.tolist(), settings, world) if rows is None else _levelled(_consecutive(rows), world)
    share = bins[rank::world]
    if settings.largest_first:
        share = sorted(share, key=lambda members: -int(lengths[members].sum()))
    mine = [chosen[members].tolist() for members in share]
    return RankBatch(
        microbatches=[build_microbatch(dataset, members) for members in mine],
        global_targets=int(dataset.targets[chosen].sum()),
        global_weight=_weight(dataset, chosen),
        global_tokens=int(lengths.sum()),
        global_documents=len(chosen),
        lengths=lengths,
    )


def build_microbatch(dataset: SftDataset, indices: Sequence[int]) -> Microbatch:
    """Flatten documents into one row; no documents make the dummy."""
    if not indices:
        return _dummy()
    examples = [dataset[index] for index in indices]
    lengths = np.array([len(example.input_ids) for example in examples])
    ends = np.cumsum(lengths)
    input_ids = np.concatenate([example.input_ids for example in examples]).astype(np.int64)
    mask = np.concatenate([example.loss_mask for example in examples])
    trained = mask != 0
    labels = np.full(len(input_ids), IGNORE, dtype=np.int64)
    labels[:-1] = np.where(trained[1:], input_ids[1:], IGNORE)
    # The first token of a document is not predicted from the document before it.
    labels[ends - 1] = IGNORE
    weights = None
    if dataset.weighted:
        weights = np.where(labels != IGNORE, np.append(mask[1:], 0), 0).astype(np.float32)
    positions = np.arange(len(input_ids)) - np.repeat(ends - lengths, lengths)
    return Microbatch(
        input_ids=torch.from_numpy(input_ids)[None],
        position_ids=torch.from_numpy(positions)[None],
        labels=torch.from_numpy(labels)[None],
        cu_seqlens=torch.from_numpy(np.concatenate([[0], ends]).astype(np.int32)),
        max_seqlen=int(lengths.max()),
        weights=torch.from_numpy(weights)[None] if weights is not None else None,
    )


def _bins(lengths: list[int], settings: BatchSettings, world: int) -> Bins:
    """Positions of the documents of each microbatch; the number of microbatches is a multiple of ``world``."""
    if settings.dynamic is not None:
        return dynamic(lengths, settings.dynamic, world)
    if not settings.packing:
        return _in_order(len(lengths), settings.micro_batch_size, world)
    bins = pack(lengths, settings.capacity, settings.algorithm, rng=random.Random(settings.seed))
    return _levelled(bins, world)


def _in_order(count: int, size: int, world: int) -> Bins:
    """Each rank a stretch of the documents, cut into microbatches of ``size``."""
    shares = [share.tolist() for share in np.array_split(np.arange(count), world)]
    starts = range(0, max(map(len, shares)), size)
    return [share[start : start + size] for start in starts for share in shares]


def _levelled(bins: Bins, world: int) -> Bins:
    """As many bins for each rank: documents move out of the fullest ones; where there are too few, bins are empty."""
    wanted = -(-len(bins) // world) * world
    bins = spread(bins, minimum=min(wanted, sum(map(len, bins))))
    return bins + [[] for _ in range(wanted - len(bins))]


def _consecutive(rows: list[list[int]]) -> Bins:
    """Positions of the documents of each row, when the rows are written one after the other."""
    ends = list(accumulate(map(len, rows)))
    return [list(range(end - len(row), end)) for row, end in zip(rows, ends, strict=True)]


def _weight(dataset: SftDataset, chosen: NDArray[np.int64]) -> float:
    if not dataset.weighted:
        return float(dataset.targets[chosen].sum())
    return float(sum(dataset[index].loss_mask.sum(dtype=np.float64) for index in chosen.tolist()))


def _dummy() -> Microbatch:
    return Microbatch(
        input_ids=torch.zeros(1, 1, dtype=torch.int64),
        position_ids=torch.zeros(1, 1, dtype=torch.int64),
        labels=torch.full((1, 1), IGNORE),
        cu_seqlens=torch.tensor([0, 1], dtype=torch.int32),
        max_seqlen=1,
        dummy=True,
    )
