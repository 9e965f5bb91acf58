"""Rows packed once over the whole data set: a step then takes rows, not documents, and an epoch has fewer steps."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skills_pipe.training.data.pack import pack


class Packs:
    """Which documents share a row, for all documents of a data set.

    Args:
        lengths: tokens of each document.
        capacity: most tokens of a row.
        algorithm: one of ``pack.ALGORITHMS``.
        seed: of the algorithms that shuffle.

    Attributes:
        fill: part of the slots of all rows that hold a token.

    Raises:
        DataError: a document is longer than a row.
    """

    def __init__(self, lengths: NDArray[np.int64], capacity: int, algorithm: str, *, seed: int = 0) -> None:
        bins = pack(lengths.tolist(), capacity, algorithm, rng=random.Random(seed))
        self._starts = np.cumsum([0, *map(len, bins)], dtype=np.int64)
        self._documents = np.fromiter((p for members in bins for p in members), np.int64, len(lengths))
        self.fill = float(lengths.sum()) / (len(bins) * capacity) if bins else 0.0

    def __len__(self) -> int:
        return len(self._starts) - 1

    def members(self, rows: Sequence[int] | NDArray[np.int64]) -> list[list[int]]:
        """The documents of each of ``rows``."""
        return [self._documents[self._starts[row] : self._starts[row + 1]].tolist() for row in rows]

    @property
    def fingerprint(self) -> str:
        """sha256 of the division: the number of a row means the same only where this is the same."""
        state = hashlib.sha256(self._starts.astype("<i8").tobytes())
        state.update(self._documents.astype("<i8").tobytes())
        return state.hexdigest()
