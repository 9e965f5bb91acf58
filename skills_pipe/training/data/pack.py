"""Packing: which documents share a microbatch, so that few token slots stay empty."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from typing import Final

from skills_pipe.errors import ConfigError, DataError, did_you_mean
from skills_pipe.training.data.subset_sum import fill_rows

Bins = list[list[int]]


def pack(lengths: Sequence[int], capacity: int, algorithm: str, *, rng: random.Random | None = None) -> Bins:
    """Divide documents into bins of at most ``capacity`` tokens.

    Args:
        lengths: tokens of each document.
        capacity: most tokens of one bin.
        algorithm: one of :data:`ALGORITHMS`, in either case.
        rng: source of the order for ``first_fit_shuffle``; the others don't use it.

    Returns:
        Bins of positions in ``lengths``; every position is in exactly one bin.

    Raises:
        ConfigError: the algorithm is unknown.
        DataError: a document is longer than a bin, or empty where the algorithm needs a size.
    """
    packer = _PACKERS.get(algorithm.lower())
    if packer is None:
        raise ConfigError(
            f"unknown packing algorithm {algorithm!r}",
            where="policy.sequence_packing.algorithm",
            fix=did_you_mean(algorithm.lower(), ALGORITHMS) or "choose one of " + ", ".join(ALGORITHMS),
        )
    longest = max(lengths, default=0)
    if longest > capacity:
        raise DataError(
            f"a document of {longest} tokens does not fit into a microbatch of {capacity}",
            where="policy.sequence_packing.train_mb_tokens",
            fix=f"raise it to {longest} or more, or lower policy.max_total_sequence_length",
        )
    return packer(lengths, capacity, rng or random.Random(0))


def spread(bins: Bins, *, minimum: int = 0, multiple: int = 1) -> Bins:
    """Move single documents out of the fullest bins until there are ``minimum`` bins and a multiple of ``multiple``.

    Raises:
        DataError: there are fewer documents than bins are wanted.
    """
    wanted = -(-max(len(bins), minimum) // multiple) * multiple
    documents = sum(map(len, bins))
    if wanted > len(bins) and documents < wanted:
        raise DataError(f"{documents} documents cannot fill {wanted} microbatches")
    spread_bins = [list(members) for members in bins]
    # Bins are drained one after the other in the order of their first size: that is the order NeMo-RL uses.
    donors = sorted(range(len(bins)), key=lambda position: (len(bins[position]), position), reverse=True)
    for position in donors:
        while len(spread_bins) < wanted and len(spread_bins[position]) > 1:
            spread_bins.append([spread_bins[position].pop()])
    return spread_bins


def _concatenative(lengths: Sequence[int], capacity: int, rng: random.Random) -> Bins:
    """Documents in their order; a new bin when the next one does not fit."""
    bins: Bins = []
    room = -1
    for position, length in enumerate(lengths):
        if length > room:
            bins.append([])
            room = capacity
        bins[-1].append(position)
        room -= length
    return bins


def _first_fit_decreasing(lengths: Sequence[int], capacity: int, rng: random.Random) -> Bins:
    """Longest first, the later one first among equals, each into the first bin with room."""
    order = sorted(range(len(lengths)), key=lambda position: (lengths[position], position), reverse=True)
    return _first_fit(order, lengths, capacity)


def _first_fit_shuffle(lengths: Sequence[int], capacity: int, rng: random.Random) -> Bins:
    """In random order, each into the first bin with room."""
    order = list(range(len(lengths)))
    rng.shuffle(order)
    return _first_fit(order, lengths, capacity)


def _best_fit_decreasing(lengths: Sequence[int], capacity: int, rng: random.Random) -> Bins:
    """Longest first, each into the bin that it fills best; ten million documents take seconds."""
    bins: Bins = []
    with_room: dict[int, list[int]] = {}  # room -> bins that have it
    rooms: list[int] = []  # those rooms, ascending: never more than there are lengths
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        length = lengths[position]
        at = bisect_left(rooms, length)
        if at < len(rooms):
            room = rooms[at]
            target = with_room[room].pop()
            if not with_room[room]:
                del with_room[room], rooms[at]
        else:
            room, target = capacity, len(bins)
            bins.append([])
        bins[target].append(position)
        left = room - length
        if left not in with_room:
            insort(rooms, left)
        with_room.setdefault(left, []).append(target)
    return bins


def _subset_sum(lengths: Sequence[int], capacity: int, rng: random.Random) -> Bins:
    """Row by row, each as full as can be; of very many documents, or where that needs fewer, by best fit."""
    best_fit = _best_fit_decreasing(lengths, capacity, rng)
    filled = fill_rows(lengths, capacity)
    return best_fit if filled is None or len(best_fit) < len(filled) else filled


def _modified_first_fit_decreasing(lengths: Sequence[int], capacity: int, rng: random.Random) -> Bins:
    """Johnson and Garey's MFFD (1985): a bin for each large document, completed by smaller ones chosen by class.

    Large is more than 1/2 of a bin, medium more than 1/3, small more than 1/6. What is left at the end is placed
    longest first into the emptiest bin, as NeMo-RL does.
    """
    if min(lengths, default=1) <= 0:
        raise DataError("a document without tokens cannot be packed")

    def between(low: int, high: int) -> list[int]:
        """Documents of more than 1/low and at most 1/high of a bin, in their order."""
        return [p for p, n in enumerate(lengths) if n * low > capacity and n * high <= capacity]

    by_length = lengths.__getitem__
    large = sorted(between(2, 1), key=by_length, reverse=True)
    medium = sorted(between(3, 2), key=by_length, reverse=True)
    small = sorted(between(6, 3), key=by_length)
    tiny = sorted((p for p, n in enumerate(lengths) if n * 6 <= capacity), key=by_length)

    bins = [[position] for position in large]
    rooms = [capacity - lengths[position] for position in large]

    def add(target: int, position: int) -> None:
        bins[target].append(position)
        rooms[target] -= lengths[position]

    for target in range(len(bins)):
        if (position := _take_longest(medium, lengths, rooms[target])) is not None:
            add(target, position)
    for target in reversed(range(len(bins))):
        if len(bins[target]) == 1 and len(small) > 1 and lengths[small[0]] + lengths[small[1]] <= rooms[target]:
            add(target, small.pop(0))
            add(target, small.pop(bisect_right(small, rooms[target], key=by_length) - 1))
    rest = sorted(medium + small + tiny, key=by_length, reverse=True)
    for target in range(len(bins)):
        while (position := _take_longest(rest, lengths, rooms[target])) is not None:
            add(target, position)
    return bins + _emptiest_first(rest, lengths, capacity)


def _first_fit(order: Sequence[int], lengths: Sequence[int], capacity: int) -> Bins:
    """First fit in O(n log n): a tree holds at each node the greatest room among the bins below it."""
    leaves = 1 << max(len(order) - 1, 0).bit_length()
    room = [capacity] * (2 * leaves)
    bins: Bins = [[] for _ in order]
    for position in order:
        node = 1
        while node < leaves:
            node *= 2
            if room[node] < lengths[position]:
                node += 1
        bins[node - leaves].append(position)
        room[node] -= lengths[position]
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return [members for members in bins if members]


def _take_longest(descending: list[int], lengths: Sequence[int], room: int) -> int | None:
    """Remove and return the first of the longest documents that fit into ``room``; None when none does."""
    at = bisect_left(descending, -room, key=lambda position: -lengths[position])
    return descending.pop(at) if at < len(descending) else None


def _emptiest_first(descending: Sequence[int], lengths: Sequence[int], capacity: int) -> Bins:
    """Each document into the emptiest bin, or a new one; the bins come out emptiest first."""
    bins: Bins = []
    used: list[int] = []
    for position in descending:
        fits = bool(bins) and used[0] + lengths[position] <= capacity
        members, tokens = (bins.pop(0), used.pop(0)) if fits else ([], 0)
        tokens += lengths[position]
        at = bisect_right(used, tokens)
        bins.insert(at, [*members, position])
        used.insert(at, tokens)
    return bins


_PACKERS: Final[dict[str, Callable[[Sequence[int], int, random.Random], Bins]]] = {
    "concatenative": _concatenative,
    "first_fit_decreasing": _first_fit_decreasing,
    "first_fit_shuffle": _first_fit_shuffle,
    "modified_first_fit_decreasing": _modified_first_fit_decreasing,
    "best_fit_decreasing": _best_fit_decreasing,
    "subset_sum": _subset_sum,
}

ALGORITHMS: Final = tuple(_PACKERS)
"""The values that ``policy.sequence_packing.algorithm`` may have."""
