import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skills_pipe.errors import DataError
from skills_pipe.training.data.sampler import BatchSampler, ByLength

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


@pytest.mark.parametrize(
    ("order", "shuffle", "count", "left_out"),
    [
        (None, True, 50, None),
        (None, False, 50, "the last"),
        ("sorted", True, 50, "the longest"),
        ("bucketed", True, 50, "the longest"),
        ("bucketed", False, 50, "the longest"),
        ("bucketed", True, 650, None),
        ("bucketed", False, 650, "the same"),
    ],
)
def test_it_is_known_which_samples_no_epoch_trains_on(order, shuffle, count, left_out):
    lengths = np.random.RandomState(0).permutation(count)
    sampler = BatchSampler(count, 8, seed=0, shuffle=shuffle, by_length=ByLength(order, lengths) if order else None)
    left = [set(range(count)) - set(epoch_of(sampler, epoch).tolist()) for epoch in range(4)]
    assert sampler.never_trained == left_out
    assert all(each == left[0] for each in left) is (left_out is not None)
    shown = {"the last": set(range(count - 2, count)), "the longest": set(np.argsort(lengths)[-2:].tolist())}
    assert left[0] == shown.get(left_out, left[0])


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


def lengths_of(count):
    return np.random.RandomState(1).randint(1, 100, count)


@pytest.mark.parametrize("order", [None, "sorted", "bucketed"])
@settings(max_examples=30)
@given(count=st.integers(4, 40), size=st.integers(1, 4), shuffle=st.booleans())
def test_a_run_that_stops_after_any_step_goes_on_with_the_very_sequence(order, count, size, shuffle):
    def fresh():
        by_length = ByLength(order, lengths_of(count)) if order else None
        return BatchSampler(count, size, seed=5, shuffle=shuffle, by_length=by_length)

    straight = fresh()
    steps = 2 * straight.steps_per_epoch + 1
    whole = [straight.batch(step).tolist() for step in range(steps)]
    # After every step, the first and last of an epoch among them.
    for stopped in range(steps):
        assert [fresh().batch(step).tolist() for step in range(stopped, steps)] == whole[stopped:]
    for epoch in range(2):
        seen = epoch_of(straight, epoch).tolist()
        assert len(set(seen)) == len(seen) == straight.steps_per_epoch * size


def test_sorted_begins_with_the_shortest_in_every_epoch():
    lengths = lengths_of(50)
    sampler = BatchSampler(50, 5, seed=0, by_length=ByLength("sorted", lengths))
    assert lengths[epoch_of(sampler, 0)].tolist() == lengths[epoch_of(sampler, 1)].tolist() == sorted(lengths)


def test_bucketed_batches_are_of_similar_length_and_come_in_another_order_each_epoch():
    lengths = lengths_of(400)
    plain, near = (BatchSampler(400, 8, seed=0, by_length=b) for b in (None, ByLength("bucketed", lengths)))

    def spread(sampler):
        return np.mean([np.ptp(lengths[sampler.batch(step)]) for step in range(sampler.steps_per_epoch)])

    assert spread(near) < spread(plain) / 5
    assert lengths[near.batch(0)].mean() != lengths[near.batch(near.steps_per_epoch)].mean()


def test_the_fingerprint_of_an_order_tells_another_order_apart():
    by_length = [ByLength("sorted", lengths_of(9)), ByLength("bucketed", lengths_of(9))]
    usual = BatchSampler(9, 3, seed=0)
    others = [BatchSampler(9, 3, seed=0, shuffle=False), *(BatchSampler(9, 3, seed=0, by_length=b) for b in by_length)]
    assert usual.fingerprint("samples") == "samples"
    assert len({sampler.fingerprint("samples") for sampler in (usual, *others)}) == 4
