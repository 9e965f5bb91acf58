import json
import math
import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import ConfigError, DataError
from skills_pipe.training.data.pack import ALGORITHMS, pack, spread
from skills_pipe.training.data.subset_sum import fill_rows
from tests.training.data.golden import FOLDER

RECORDED = json.loads((FOLDER / "packing.json").read_text())
LENGTHS = {case["list"]: case["lengths"] for case in RECORDED["cases"] if case["lengths"] is not None}

any_lengths = st.lists(st.integers(1, 64), max_size=60)


def name(case):
    return f"{case['algorithm']}-list{case['list']}-{case['min_bin_count']}-{case['bin_count_multiple']}"


@pytest.mark.parametrize("case", RECORDED["cases"], ids=name)
def test_bins_are_those_that_nemo_rl_made(case):
    seed = case["python_random_seed"]
    rng = random.Random(seed) if seed is not None else None
    bins = pack(LENGTHS[case["list"]], case["capacity"], case["algorithm"], rng=rng)
    bins = spread(bins, minimum=case["min_bin_count"] or 0, multiple=case["bin_count_multiple"] or 1)
    assert bins == case["bins"]


def test_the_recorded_algorithms_differ_so_equal_bins_mean_something():
    lengths, capacity = LENGTHS[0], RECORDED["cases"][0]["capacity"]
    made = [pack(lengths, capacity, algorithm) for algorithm in ALGORITHMS]
    assert len({json.dumps(bins) for bins in made}) == len(ALGORITHMS)


@pytest.mark.parametrize("case", RECORDED["edge"], ids=lambda case: f"{case['algorithm']}-{case['lengths']}")
def test_edges_end_as_in_nemo_rl(case):
    if "error" in case:
        with pytest.raises((DataError, ConfigError)):
            pack(case["lengths"], case["capacity"], case["algorithm"])
    else:
        assert pack(case["lengths"], case["capacity"], case["algorithm"]) == case["bins"]


def test_an_unknown_algorithm_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean 'best_fit_decreasing'\?"):
        pack([3], 8, "best_fit_decresing")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(lengths=any_lengths, capacity=st.integers(64, 200))
def test_every_document_is_in_one_bin_and_no_bin_overflows(algorithm, lengths, capacity):
    bins = pack(lengths, capacity, algorithm)
    assert sorted(position for members in bins for position in members) == list(range(len(lengths)))
    assert all(0 < sum(lengths[p] for p in members) <= capacity for members in bins)
    assert len(bins) >= math.ceil(sum(lengths) / capacity)


@pytest.mark.parametrize("algorithm", ["first_fit_decreasing", "best_fit_decreasing", "modified_first_fit_decreasing"])
@given(pairs=st.lists(st.integers(1, 99), min_size=1, max_size=30))
def test_pairs_that_fill_a_bin_exactly_need_few_more_bins_than_the_best_packing(algorithm, pairs):
    lengths = [part for first in pairs for part in (first, 100 - first)]
    # Bound of first fit decreasing: 11/9 of the best packing and one bin.
    assert len(pack(lengths, 100, algorithm)) <= 11 / 9 * len(pairs) + 1


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=40))
def test_subset_sum_needs_no_more_bins_than_any_other(lengths):
    made = {algorithm: len(pack(lengths, 40, algorithm)) for algorithm in ALGORITHMS}
    assert made["subset_sum"] <= made["best_fit_decreasing"]
    assert made["subset_sum"] <= 11 / 9 * min(made.values()) + 1


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=9), room=st.integers(0, 40))
def test_the_first_row_is_filled_as_full_as_can_be(lengths, room):
    capacity = max(lengths) + room
    first, *_ = fill_rows(lengths, capacity)
    longest = lengths.index(max(lengths))
    others = [length for at, length in enumerate(lengths) if at != longest]
    totals = (sum(part) for count in range(len(others) + 1) for part in combinations(others, count))
    best = max(total for total in totals if total <= room)
    assert first[0] == longest
    assert sum(lengths[at] for at in first) == lengths[longest] + best


def test_lognormal_batches_have_the_fewest_bins_that_there_can_be():
    batches = np.clip(np.random.RandomState(0).lognormal(5.2, 0.8, (20, 64)), 8, 1024).astype(int).tolist()
    least = [math.ceil(sum(lengths) / 1024) for lengths in batches]
    assert [len(pack(lengths, 1024, "subset_sum")) for lengths in batches] == least
    # The control: the other algorithms need more for some of them.
    for algorithm in ALGORITHMS[:-1]:
        assert sum(len(pack(lengths, 1024, algorithm)) for lengths in batches) > sum(least), algorithm


def test_very_many_documents_are_packed_by_best_fit():
    lengths = np.random.RandomState(0).randint(1, 64, 5000).tolist()
    assert fill_rows(lengths, 64) is None
    assert pack(lengths, 64, "subset_sum") == pack(lengths, 64, "best_fit_decreasing")


@given(lengths=st.lists(st.integers(1, 64), min_size=8, max_size=60), multiple=st.integers(1, 8))
def test_spreading_moves_documents_and_loses_none(lengths, multiple):
    bins = pack(lengths, 64, "best_fit_decreasing")
    wide = spread(bins, multiple=multiple) if len(lengths) >= -(-len(bins) // multiple) * multiple else bins
    assert sorted(p for members in wide for p in members) == list(range(len(lengths)))
    assert all(wide)
    assert wide is bins or len(wide) % multiple == 0


def test_fewer_documents_than_bins_cannot_be_spread():
    with pytest.raises(DataError, match="3 documents cannot fill 4 microbatches"):
        spread([[0, 1], [2]], multiple=4)
