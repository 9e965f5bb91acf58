"""What limits and batches would cost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.training.config import load_config
from skills_pipe.training.data.doctor.planning import (
    epoch_plan,
    epoch_units,
    length_plans,
    suggested_limit,
    usual_limits,
)


def config(*overrides):
    return load_config(None, ["++policy.model_name=m", "++data.train_data_path=a.jsonl", *overrides])


LENGTHS = np.array([50, 50, 50, 50, 100, 100, 150, 250])


def plan(limit, *overrides):
    return length_plans(LENGTHS, [limit], config("++policy.train_global_batch_size=8", *overrides))[0]


def test_longer_documents_are_lost_whole_where_they_are_dropped():
    assert (plan(100).longer, plan(100).lost) == (2 / 8, 400 / 800)


def test_only_their_ends_are_lost_where_they_are_shortened():
    shortened = plan(100, "++data.overlong=truncate")
    assert (shortened.longer, shortened.lost) == (2 / 8, 200 / 800)


def test_fullness_is_that_of_packing_each_batch():
    assert plan(100).packed == 1
    assert plan(400).packed == 1
    assert plan(300).packed == pytest.approx(800 / 900)
    assert plan(49).packed is None


def test_batches_are_packed_by_themselves():
    # Two documents of 50 in a batch leave half of a microbatch of 200 empty, whatever other batches have.
    small = length_plans(np.full(8, 50), [200], config("++policy.train_global_batch_size=2"))[0]
    assert small.packed == 0.5


def test_the_whole_data_is_packed_where_that_is_asked():
    whole = "++policy.sequence_packing.scope=dataset"
    small = length_plans(np.full(8, 50), [200], config("++policy.train_global_batch_size=2", whole))[0]
    assert small.packed == 1


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=300))
def test_the_suggested_limit_holds_nearly_all(lengths):
    limit = suggested_limit(np.array(lengths))
    assert limit % 64 == 0
    assert np.mean(np.array(lengths) <= limit) >= 0.995
    assert np.mean(np.array(lengths) <= limit - 64) < 0.995


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=300), st.integers(1, 10000))
def test_usual_limits_have_the_configured_one_and_the_suggested_one(lengths, configured):
    limits = usual_limits(np.array(lengths), configured)
    assert limits == sorted(set(limits))
    assert {configured, suggested_limit(np.array(lengths))} <= set(limits)
    assert len(limits) <= 6


def test_no_documents_have_no_plan():
    assert usual_limits(np.array([], np.int64), 100) == [100]
    empty = length_plans(np.array([], np.int64), [100], config())[0]
    assert (empty.longer, empty.lost, empty.packed) == (0, 0, None)


def test_an_epoch_has_full_batches_only():
    epoch = epoch_plan(1003, 100_300, 1003, config("++policy.train_global_batch_size=10"))
    assert (epoch.steps, epoch.tokens_per_step) == (100, 1000)


def test_training_ends_with_its_steps_or_its_epochs():
    words = ["++policy.train_global_batch_size=10"]
    assert (
        epoch_plan(1000, 1, 1000, config(*words, "++sft.max_num_epochs=2", "++sft.max_num_steps=150")).planned_steps
        == 150
    )
    assert (
        epoch_plan(1000, 1, 1000, config(*words, "++sft.max_num_epochs=1", "++sft.max_num_steps=150")).planned_steps
        == 100
    )
    assert epoch_plan(9, 1, 9, config(*words)).planned_steps is None


def test_steps_are_of_packed_rows_where_all_documents_are_packed_together():
    whole = config("++policy.sequence_packing.scope=dataset", "++policy.max_total_sequence_length=200")
    assert epoch_units(8, np.full(8, 50), whole) == 2
    assert epoch_units(800, np.full(8, 50), whole) == 200  # some of the rows were read
    assert epoch_units(8, np.full(8, 50), config()) == 8
    plan = epoch_plan(8, 400, 2, config("++policy.train_global_batch_size=2"))
    assert (plan.unit, plan.steps, plan.tokens_per_step, plan.planned_steps) == ("packed rows", 1, 400, 1)
