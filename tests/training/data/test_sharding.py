"""Which documents each rank computes, and in which microbatches: as NeMo RL shares out a global batch."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import DataError
from skills_pipe.training.data.batches import BatchSettings, split_batch
from skills_pipe.training.data.dataset import Example, SftDataset
from skills_pipe.training.data.dynamic import Budget, dynamic
from skills_pipe.training.data.pack import pack
from tests.training.data.golden import FOLDER

RECORDED = json.loads((FOLDER / "sharding.json").read_text())
GOOD = [case for case in RECORDED if "error" not in case]


def name(case):
    parts = (case["mode"], case["list"], case.get("algorithm"), case.get("round"), case.get("pad_multiple"))
    return "-".join(str(part) for part in (*parts, case.get("microbatch_order")) if part is not None)


def settings_of(case):
    if case["mode"] == "dynamic":
        budget = Budget(tokens=case["max_tokens"], multiple=case["round"], width=case["width"])
        return BatchSettings(capacity=1, packing=False, dynamic=budget)
    if case["mode"] == "packing":
        largest_first = case["microbatch_order"] == "largest_first"
        return BatchSettings(capacity=case["max_tokens"], algorithm=case["algorithm"], largest_first=largest_first)
    return BatchSettings(capacity=1, packing=False)


def shares(case):
    """For each shard its rows, and the sizes of its microbatches, one global batch after the other; no dummies."""
    multiple = case.get("pad_multiple", 1)
    lengths = [-(-length // multiple) * multiple for length in case["lengths"]]
    if case["mode"] == "uneven_n_minus_1":
        lengths = lengths[:-1]
    size = case["batch_size"] if case["mode"] not in ("plain_no_batch_size", "uneven_n_minus_1") else len(lengths)
    # The id of each token is the number of its row, so that a microbatch tells whose tokens it has.
    rows = [Example(input_ids=np.full(n, i, np.int32), loss_mask=np.zeros(n, np.uint8)) for i, n in enumerate(lengths)]
    dataset = SftDataset.from_examples(rows)
    shards, sizes = [], []
    for rank in range(case["shards"]):
        batches = [range(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
        made = [split_batch(dataset, batch, settings_of(case), rank, case["shards"]).microbatches for batch in batches]
        micros = [
            [m.input_ids[0, m.cu_seqlens[:-1].long()].tolist() for m in batch if m.tokens > 1 or m.input_ids.item()]
            for batch in made
        ]
        shards.append([row for batch in micros for micro in batch for row in micro])
        sizes.append([[len(micro) for micro in batch] for batch in micros])
    return shards, sizes


@pytest.mark.parametrize("case", GOOD, ids=name)
def test_the_rows_of_each_rank_are_those_of_nemo_rl(case):
    shards, sizes = shares(case)
    assert shards == case["shards_idx"]
    if case["mode"] == "dynamic":
        expected = [[stop - start for start, stop in batch] for batch in case["micro_batch_indices"]]
        assert sizes == [expected] * case["shards"]
    if case["mode"] == "packing":
        ends = case["micro_batch_indices"]
        assert sizes == [[[stop - start for start, stop in batch] for batch in shard] for shard in ends]


def test_the_recorded_modes_differ_so_equal_rows_mean_something():
    of_first_list = {json.dumps(case["shards_idx"]) for case in GOOD if case["list"] == 0}
    assert len(of_first_list) >= 6


def test_bins_that_are_not_levelled_would_not_be_those_of_nemo_rl():
    case = next(c for c in GOOD if c["mode"] == "packing" and c["list"] == 4 and c["algorithm"] == "concatenative")
    bins = pack(case["lengths"], case["max_tokens"], case["algorithm"])
    assert len(bins) % case["shards"]
    dealt_out = [[row for members in bins[rank :: case["shards"]] for row in members] for rank in range(case["shards"])]
    assert dealt_out != case["shards_idx"]


def test_a_document_beyond_the_budget_is_refused_with_its_rounded_length():
    case = next(c for c in RECORDED if c["mode"] == "dynamic_too_small")
    budget = Budget(tokens=case["max_tokens"], multiple=case["round"], width=case["width"])
    with pytest.raises(DataError, match=r"rounded to 16, does not fit into a microbatch of 4"):
        dynamic(case["lengths"][: case["batch_size"]], budget, case["shards"])


@given(
    lengths=st.lists(st.integers(1, 64), min_size=1, max_size=40),
    multiple=st.integers(1, 16),
    world=st.integers(1, 5),
)
def test_dynamic_microbatches_hold_every_document_once_and_keep_to_the_budget(lengths, multiple, world):
    budget = Budget(tokens=80, multiple=multiple, width=64)
    bins = dynamic(lengths, budget, world)
    assert len(bins) % world == 0
    assert sorted(p for members in bins for p in members) == list(range(len(lengths)))
    for start in range(0, len(bins), world):
        together = bins[start : start + world]
        longest = max(lengths[p] for members in together for p in members)
        rounded = min(-(-longest // multiple) * multiple, 64)
        assert max(map(len, together)) * rounded <= budget.tokens
