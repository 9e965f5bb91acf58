"""Places of tokens in a text and of its segments -> what the loss mask says of each token."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def mask_of_tokens(
    starts: NDArray[np.int64], ends: NDArray[np.int64], borders: NDArray[np.int64], values: NDArray[Any]
) -> tuple[NDArray[Any], int]:
    """The greatest value of the segments that each token touches, and how many tokens touch different values.

    Args:
        starts, ends: int64 [n], where each token starts and ends in the text, in characters or in bytes.
        borders: int64 [s], where each segment ends, in the same unit.
        values: [s], what the mask says of each segment.

    Returns:
        The mask [n], of the type of ``values``; and the number of tokens that reach over a border of what is trained.
    """
    if not len(borders):
        return np.zeros(len(starts), values.dtype), 0
    last = len(borders) - 1
    # A token without width is one of the text that it stands before.
    first = np.minimum(np.searchsorted(borders, starts, side="right"), last)
    final = np.minimum(np.searchsorted(borders, np.maximum(ends - 1, starts), side="right"), last)
    mask = values[first]
    straddling = 0
    for token in np.flatnonzero(first != final):
        # Segments without text lie between the others and touch no token.
        touched = [at for at in range(first[token], final[token] + 1) if at == 0 or borders[at] > borders[at - 1]]
        mask[token] = values[touched].max()
        straddling += len(np.unique(values[touched])) > 1
    return mask, straddling


def mask_of_texts(
    reached: NDArray[np.int64], borders: NDArray[np.int64], values: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The same for many texts at once, where tokens do not reach over borders.

    Args:
        reached: int64 [n + 1], 0 and where each token ends; every token has a width.
        borders: int64 [s], where each segment ends; texts follow each other, so the end of the last one is the end of
            the tokens too.
        values: [s], what the mask says of each segment.

    Returns:
        The mask [n]; and the numbers of the segments at whose ends there are tokens that reach over: in their texts the
        mask is not right.
    """
    tokens = np.searchsorted(reached, borders)
    unclear = np.flatnonzero(reached[tokens] != borders)
    return np.repeat(values, np.diff(tokens, prepend=0)), unclear
