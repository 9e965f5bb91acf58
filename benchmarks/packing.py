"""How many microbatches packing makes of each global batch, beside the fewest that there can be.

::

    python benchmarks/packing.py --batches 50

Lengths are lognormal, as those of chats are. The fewest are Martello and Toth's lower bound for bin packing (L2): no
division into microbatches, however clever, has fewer. With several ranks all have as many microbatches, so the fewest
are rounded up to a multiple of the ranks.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skills_pipe.training.data.batches import BatchSettings, split_batch
from skills_pipe.training.data.dataset import Example, SftDataset
from skills_pipe.training.data.pack import ALGORITHMS, pack

RANKS = 8


@dataclass(frozen=True, kw_only=True)
class Case:
    """Lengths of documents, and what they are packed into."""

    median: int
    capacity: int
    batch: int


CASES = (
    Case(median=180, capacity=2048, batch=64),
    Case(median=180, capacity=2048, batch=512),
    Case(median=660, capacity=4096, batch=64),
    Case(median=660, capacity=4096, batch=512),
    Case(median=1800, capacity=4096, batch=128),
    Case(median=1800, capacity=8192, batch=128),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=50)
    batches = parser.parse_args().batches
    for number, case in enumerate(CASES):
        lengths = _lengths(case, batches, seed=number)
        least = sum(fewest(batch, case.capacity) for batch in lengths)
        print(f"median {case.median}, rows of {case.capacity}, {case.batch} documents: {least / batches:.1f} at least")
        for algorithm in ALGORITHMS:
            _show(algorithm, case, lengths)


def fewest(lengths: Sequence[int], capacity: int) -> int:
    """Lower bound of the bins of ``lengths``: L2 of Martello and Toth (1990), in its plain form."""
    bound = 0
    for small in {0, *(length for length in lengths if 2 * length <= capacity)}:
        full = sum(length > capacity - small for length in lengths)
        half = [length for length in lengths if 2 * length > capacity and length <= capacity - small]
        rest = sum(length for length in lengths if small <= length and 2 * length <= capacity)
        room = len(half) * capacity - sum(half)
        bound = max(bound, full + len(half) + max(0, math.ceil((rest - room) / capacity)))
    return bound


def _lengths(case: Case, batches: int, seed: int) -> list[list[int]]:
    drawn = np.random.RandomState(seed).lognormal(math.log(case.median), 0.8, (batches, case.batch))
    return [[int(length) for length in batch] for batch in np.clip(drawn, 8, case.capacity)]


def _show(algorithm: str, case: Case, lengths: list[list[int]]) -> None:
    least = [fewest(batch, case.capacity) for batch in lengths]
    began = time.process_time()
    alone = [len(pack(batch, case.capacity, algorithm)) for batch in lengths]
    taken = (time.process_time() - began) / len(lengths)
    shared = [_on_ranks(batch, case.capacity, algorithm) for batch in lengths]
    least_shared = [math.ceil(bins / RANKS) for bins in least]
    exact = np.mean([ours == bound for ours, bound in zip(alone, least, strict=True)])
    print(
        f"    {algorithm:30} {sum(alone) / sum(least):6.4f} of the fewest, {exact:4.0%} of the batches at them; "
        f"{RANKS} ranks {sum(shared) / sum(least_shared):6.4f}; {1e3 * taken:5.2f} ms"
    )


def _on_ranks(lengths: list[int], capacity: int, algorithm: str) -> int:
    """Microbatches of each rank, as training makes them."""
    rows = [Example(input_ids=np.zeros(n, np.int32), loss_mask=np.zeros(n, np.uint8)) for n in lengths]
    settings = BatchSettings(capacity=capacity, algorithm=algorithm)
    return len(split_batch(SftDataset.from_examples(rows), range(len(rows)), settings, 0, RANKS).microbatches)


if __name__ == "__main__":
    main()
