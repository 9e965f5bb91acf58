import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import DataError
from skills_pipe.training.data.sampler import BatchSampler

RECORDED_ORDER = [7, 1, 2, 8, 6, 0, 5, 3, 4]


def epoch_of(sampler, epoch):
    steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
    return np.concatenate([sampler.batch(step) for step in steps])


@given(size=st.integers(1, 16), full=st.integers(1, 8), rest=st.integers(0, 15), seed=st.integers(0, 2**32 - 1))
def test_an_epoch_has_each_sample_once_but_for_the_rest_of_a_batch(size, full, rest, seed):
    count = size * full + rest % size
    sampler = BatchSampler(count, size, seed=seed)
    seen = epoch_of(sampler, 2)
    assert len(seen) == len(set(seen.tolist())) == size * full
    assert set(seen.tolist()) <= set(range(count))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [epoch_of(BatchSampler(64, 8, seed=seed), epoch).tolist() for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_without_shuffle_every_epoch_is_in_order():
    sampler = BatchSampler(10, 3, seed=1, shuffle=False)
    assert epoch_of(sampler, 0).tolist() == epoch_of(sampler, 5).tolist() == list(range(9))


def test_a_batch_depends_on_its_step_alone():
    straight = BatchSampler(50, 8, seed=3)
    resumed = BatchSampler(50, 8, seed=3)
    batches = [straight.batch(step).tolist() for step in range(30)]
    assert [resumed.batch(step).tolist() for step in reversed(range(30))] == batches[::-1]


def test_the_order_is_the_same_in_another_process():
    program = "from skills_pipe.training.data.sampler import *; print(BatchSampler(9, 9, seed=42).batch(1).tolist())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert other.strip() == str(BatchSampler(9, 9, seed=42).batch(1).tolist())


def test_the_order_never_changes_between_versions():
    assert BatchSampler(9, 9, seed=42).batch(1).tolist() == RECORDED_ORDER


def test_steps_are_counted_over_epochs():
    sampler = BatchSampler(10, 3, seed=0)
    assert sampler.steps_per_epoch == 3
    assert [sampler.epoch(step) for step in range(7)] == [0, 0, 0, 1, 1, 1, 2]


@pytest.mark.parametrize("count", [0, 7])
def test_fewer_samples_than_one_batch_are_refused(count):
    with pytest.raises(DataError, match=f"the {count} training samples do not fill one global batch of 8"):
        BatchSampler(count, 8, seed=0)
