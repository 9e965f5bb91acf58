import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.training.data.cyclic import ShuffledCyclicSequence

RECORDED = json.loads((Path(__file__).parents[1] / "golden" / "trlx" / "shuffled_cyclic.json").read_text())


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: f"{case['length']}-to-{case['new_length']}")
def test_the_order_is_that_of_trlx(case):
    sequence = ShuffledCyclicSequence(case["new_length"], range(case["length"]), case["seed"])
    assert list(sequence) == sequence[:] == case["order"]
    other = ShuffledCyclicSequence(case["new_length"], range(case["length"]), case["seed"] + 1)
    assert list(other) != case["order"]


@given(length=st.integers(1, 9), new_length=st.integers(0, 40), seed=st.integers(0, 99))
def test_every_item_occurs_as_often_as_every_other_but_for_one(length, new_length, seed):
    counts = Counter(ShuffledCyclicSequence(new_length, range(length), seed))
    assert sum(counts.values()) == new_length
    assert all(counts[item] in (new_length // length, new_length // length + 1) for item in range(length))


def test_nothing_cannot_be_repeated():
    with pytest.raises(ValueError, match="no data to repeat"):
        ShuffledCyclicSequence(3, [], 0)
