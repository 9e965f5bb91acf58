"""Token ids of many texts, in one array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Tokens of n texts.

    Attributes:
        ids: int32 [T], of all texts one after the other.
        counts: int64 [n], tokens of each text.
    """

    ids: NDArray[np.int32]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, ids: Sequence[Sequence[int]]) -> Tokens:
        """From the ids of each text."""
        counts = np.array([len(text) for text in ids], dtype=np.int64)
        return cls(ids=np.fromiter(chain.from_iterable(ids), np.int32, int(counts.sum())), counts=counts)

    def __len__(self) -> int:
        return len(self.counts)

    def each(self) -> list[NDArray[np.int32]]:
        """The ids of each text."""
        ends = self.counts.cumsum().tolist()
        return [self.ids[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else []
