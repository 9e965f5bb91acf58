"""Rows set aside for validation: the same ones on every machine, in every job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from skills_pipe.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class HoldOut:
    """One side of a split of the rows of several files, as seen from one of them.

    The rows are those that ``datasets`` sets aside by ``train_test_split(test_size=held_out, seed=seed)``, which
    NeMo RL uses; here both sides keep the order of their files.

    Attributes:
        total: rows of all files together.
        held_out: how many of them are set aside.
        seed: of the choice.
        first: number, among all of them, of this file's first row.
        validation: whether this is the side that is set aside.
    """

    total: int
    held_out: int
    seed: int
    first: int
    validation: bool

    def __contains__(self, row: int) -> bool:
        return bool(_set_aside(self.total, self.held_out, self.seed)[self.first + row]) == self.validation


def hold_out(sizes: Sequence[int], size: float, seed: int) -> list[tuple[HoldOut, HoldOut]]:
    """Split the rows of files into training and validation.

    Args:
        sizes: rows of each file.
        size: part of the rows below 1, else their number.
        seed: of the choice.

    Returns:
        For each file its side for training and its side for validation.

    Raises:
        ConfigError: nothing would be left on one side.
    """
    total = sum(sizes)
    count = math.ceil(size * total) if size < 1 else int(size)
    if not 0 < count < total:
        raise ConfigError(
            f"{count} of {total} rows cannot be set aside for validation",
            where="data.split_validation_size",
            fix="give a part of the rows, such as 0.05, or a smaller number",
        )
    parts = []
    first = 0
    for rows in sizes:
        sides = [
            HoldOut(total=total, held_out=count, seed=seed, first=first, validation=side) for side in (False, True)
        ]
        parts.append((sides[0], sides[1]))
        first += rows
    return parts


@lru_cache(maxsize=4)
def _set_aside(total: int, held_out: int, seed: int) -> NDArray[np.bool_]:
    chosen = np.zeros(total, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(total)[:held_out]] = True
    return chosen
