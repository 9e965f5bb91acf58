"""Rows filled one after the other as full as can be: for a global batch, mostly the fewest rows that there can be."""

from __future__ import annotations

from collections.abc import Sequence

_MOST_DOCUMENTS = 4096
"""A row takes time in proportion to the documents that are left; beyond so many, simpler algorithms fill as well."""


def fill_rows(lengths: Sequence[int], capacity: int) -> list[list[int]] | None:
    """Divide documents into rows; None where there are too many of them.

    Each row begins with the longest document that is left, and gets those of the others that fill it best: a problem of
    subset sums, solved exactly by dynamic programming over all totals that can be reached.

    Args:
        lengths: tokens of each document, none above ``capacity``.
        capacity: most tokens of a row.

    Returns:
        Rows of positions in ``lengths``; every position is in exactly one.
    """
    if len(lengths) > _MOST_DOCUMENTS:
        return None
    left = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    rows = []
    while left:
        first = left.pop(0)
        chosen = _best_subset([lengths[position] for position in left], capacity - lengths[first])
        rows.append([first, *(left[at] for at in chosen)])
        for at in reversed(chosen):
            del left[at]
    return rows


def _best_subset(lengths: Sequence[int], room: int) -> list[int]:
    """Positions, ascending, of documents whose lengths add up to as much as fits into ``room``.

    Bit n of ``reachable`` says whether some of the documents so far add up to n: one shift of a number of ``room`` bits
    takes in a document.
    """
    within = (1 << (room + 1)) - 1
    reachable, before = 1, []
    for length in lengths:
        before.append(reachable)
        if length <= room:
            reachable |= (reachable << length) & within
        if reachable >> room & 1:
            break
    total = reachable.bit_length() - 1
    chosen = []
    for at in reversed(range(len(before))):
        # A total that could not be reached without a document has it.
        if not before[at] >> total & 1:
            chosen.append(at)
            total -= lengths[at]
    return chosen[::-1]
