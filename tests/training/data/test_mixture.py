"""Shares of several datasets: exact in every epoch, the same on every machine."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.training.data.dataset import Example, SftDataset
from skills_pipe.training.data.mixture import Mixture, Share
from skills_pipe.training.data.report import DataReport


def dataset(first, count, **counts):
    examples = []
    for number in range(count):
        ids = np.array([first + number] * (2 + number % 3), np.int32)
        mask = np.ones(len(ids), np.uint8)
        mask[0] = 0
        examples.append(Example(input_ids=ids, loss_mask=mask))
    return SftDataset.from_examples(examples, DataReport(rows_read=count, documents=count, **counts))


def first_ids(data):
    return [int(data[index].input_ids[0]) for index in range(len(data))]


@given(st.lists(st.tuples(st.integers(1, 20), st.floats(0.01, 4)), min_size=1, max_size=4), st.integers(0, 9))
def test_an_epoch_has_exactly_the_shares(parts, seed):
    mixed = Mixture([Share(dataset(1000 * k, count), weight, seed) for k, (count, weight) in enumerate(parts)])
    seen = Counter(first_ids(mixed))
    for k, (count, weight) in enumerate(parts):
        times = [seen[1000 * k + number] for number in range(count)]
        assert sum(times) == max(1, round(weight * count))
        assert max(times) - min(times) <= 1, "no document is preferred by more than one turn"
    assert len(mixed) == seen.total()


def test_documents_lengths_and_targets_agree():
    mixed = Mixture([Share(dataset(0, 5), 2, 1), Share(dataset(100, 7), 0.5, 1)])
    examples = [mixed[index] for index in range(len(mixed))]
    assert mixed.lengths.tolist() == [len(example.input_ids) for example in examples]
    assert mixed.targets.tolist() == [int(example.loss_mask.sum()) for example in examples]
    with pytest.raises(IndexError):
        mixed[len(mixed)]


def test_the_report_counts_rows_of_all_and_documents_of_the_epoch():
    mixed = Mixture(
        [
            Share(dataset(0, 4, dropped={"bad row": 1}, tokenized_by="x"), 2, 0),
            Share(dataset(9, 3, dropped={"bad row": 2}, tokenized_by="x"), 1, 0),
        ]
    )
    report = mixed.report
    assert (report.rows_read, report.documents, report.dropped) == (7, 11, {"bad row": 3})
    assert report.tokenized_by == "x"
    assert report.tokens == mixed.lengths.sum()
    assert report.targets == mixed.targets.sum()
    assert report.length_percentiles[100] == mixed.lengths.max()


def test_the_choice_of_a_part_follows_its_seed():
    one, again, other = (Mixture([Share(dataset(0, 50), 0.5, seed)]) for seed in (1, 1, 2))
    assert first_ids(one) == first_ids(again)
    assert first_ids(one) != first_ids(other)


def test_fingerprints_tell_shares_apart():
    prints = {
        Mixture([Share(dataset(0, 5), weight, seed), Share(dataset(9, 5), 1, 0)]).fingerprint
        for weight, seed in ((1, 0), (2, 0), (0.5, 0), (0.5, 1))
    }
    assert len(prints) == 4
    assert Mixture([Share(dataset(0, 5), 1, 0)]).fingerprint == Mixture([Share(dataset(0, 5), 1, 3)]).fingerprint


def test_weights_of_tokens_are_seen_in_any_part():
    plain = dataset(0, 2)
    weighted = SftDataset.from_examples(
        [Example(input_ids=np.arange(3, dtype=np.int32), loss_mask=np.array([0, 0.5, 1], np.float32))]
    )
    assert not Mixture([Share(plain, 1, 0)]).weighted
    assert Mixture([Share(plain, 1, 0), Share(weighted, 1, 0)]).weighted
