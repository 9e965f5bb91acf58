"""Microbatches: the documents of a global batch, flattened into rows of tensors and shared out among the ranks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skills_pipe.training.data.dataset import SftDataset
from skills_pipe.training.data.pack import Bins, pack, spread

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
    """

    capacity: int
    packing: bool = True
    algorithm: str = "modified_first_fit_decreasing"
    micro_batch_size: int = 1
    largest_first: bool = False
    seed: int = 0


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
    """

    input_ids: Tensor
    position_ids: Tensor
    labels: Tensor
    cu_seqlens: Tensor
    max_seqlen: int

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
        )


@dataclass(frozen=True, kw_only=True)
class RankBatch:
    """What one rank computes of a global batch, with the counts of the whole of it.

    Attributes:
        microbatches: of this rank; every rank has the same number.
        global_targets: trained tokens over all ranks, the divisor of the loss.
        global_tokens: tokens over all ranks.
        global_documents: documents over all ranks.
    """

    microbatches: list[Microbatch]
    global_targets: int
    global_tokens: int
    global_documents: int


def split_batch(
    dataset: SftDataset, indices: Sequence[int] | NDArray[np.int64], settings: BatchSettings, rank: int, world: int
) -> RankBatch:
    """The microbatches of ``rank`` out of ``world`` for the global batch ``indices``.

    Microbatch i belongs to rank i modulo world. Where there are fewer documents than microbatches are needed for equal
    counts, a rank gets a dummy of one token and no label: it takes part in the collectives and adds nothing.

    Raises:
        DataError: a document is longer than the capacity.
    """
    chosen = np.asarray(indices, dtype=np.int64)
    lengths = dataset.lengths[chosen]
    bins = _bins(lengths.tolist(), settings, world)
    if settings.largest_first:
        bins = sorted(bins, key=lambda members: -int(lengths[members].sum()))
    mine = [chosen[members].tolist() for members in bins[rank::world]]
    return RankBatch(
        microbatches=[build_microbatch(dataset, members) for members in mine],
        global_targets=int(dataset.targets[chosen].sum()),
        global_tokens=int(lengths.sum()),
        global_documents=len(chosen),
    )


def build_microbatch(dataset: SftDataset, indices: Sequence[int]) -> Microbatch:
    """Flatten documents into one row; no documents make the dummy."""
    if not indices:
        return _dummy()
    examples = [dataset[index] for index in indices]
    lengths = np.array([len(example.input_ids) for example in examples])
    ends = np.cumsum(lengths)
    input_ids = np.concatenate([example.input_ids for example in examples]).astype(np.int64)
    trained = np.concatenate([example.loss_mask for example in examples]) != 0
    labels = np.full(len(input_ids), IGNORE, dtype=np.int64)
    labels[:-1] = np.where(trained[1:], input_ids[1:], IGNORE)
    # The first token of a document is not predicted from the document before it.
    labels[ends - 1] = IGNORE
    positions = np.arange(len(input_ids)) - np.repeat(ends - lengths, lengths)
    return Microbatch(
        input_ids=torch.from_numpy(input_ids)[None],
        position_ids=torch.from_numpy(positions)[None],
        labels=torch.from_numpy(labels)[None],
        cu_seqlens=torch.from_numpy(np.concatenate([[0], ends]).astype(np.int32)),
        max_seqlen=int(lengths.max()),
    )


def _bins(lengths: list[int], settings: BatchSettings, world: int) -> Bins:
    """Positions of the documents of each microbatch; the number of microbatches is a multiple of ``world``."""
    if settings.packing:
        bins = pack(lengths, settings.capacity, settings.algorithm, rng=random.Random(settings.seed))
    else:
        size = settings.micro_batch_size
        bins = [list(range(start, min(start + size, len(lengths)))) for start in range(0, len(lengths), size)]
    wanted = -(-len(bins) // world) * world
    bins = spread(bins, minimum=min(wanted, len(lengths)))
    return bins + [[] for _ in range(wanted - len(bins))]


def _dummy() -> Microbatch:
    return Microbatch(
        input_ids=torch.zeros(1, 1, dtype=torch.int64),
        position_ids=torch.zeros(1, 1, dtype=torch.int64),
        labels=torch.full((1, 1), IGNORE),
        cu_seqlens=torch.tensor([0, 1], dtype=torch.int32),
        max_seqlen=1,
    )
