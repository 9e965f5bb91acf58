import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.training.data.batches import BatchSettings, split_batch
from skills_pipe.training.data.dataset import Example, SftDataset
from skills_pipe.training.data.pack import ALGORITHMS, pack
from skills_pipe.training.data.packs import Packs


def lognormal(count, *, capacity=2048):
    lengths = np.random.RandomState(0).lognormal(5.2, 0.8, count).astype(np.int64)
    return np.clip(lengths, 8, capacity)


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "concatenative"])
def test_over_the_whole_set_99_of_100_slots_hold_a_token(algorithm):
    assert Packs(lognormal(20_000), 2048, algorithm).fill >= 0.99


def test_documents_in_their_order_fill_less_so_the_bound_means_something():
    assert Packs(lognormal(20_000), 2048, "concatenative").fill < 0.95


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_best_fit_needs_no_more_than_one_bin_beyond_first_fit(lengths):
    # Both keep within 11/9 of the best packing; ours must not lose documents or room to its bookkeeping.
    best, first = (pack(lengths, 30, f"{kind}_fit_decreasing") for kind in ("best", "first"))
    assert abs(len(best) - len(first)) <= 1


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=60), seed=st.integers(0, 3))
def test_every_document_is_in_one_row(lengths, seed):
    packs = Packs(np.array(lengths), 30, "first_fit_shuffle", seed=seed)
    rows = packs.members(range(len(packs)))
    assert sorted(document for row in rows for document in row) == list(range(len(lengths)))
    assert all(sum(lengths[document] for document in row) <= 30 for row in rows)


def test_a_batch_of_rows_keeps_them_together():
    dataset = SftDataset.from_examples(
        Example(input_ids=np.full(n, i, np.int32), loss_mask=np.ones(n, np.uint8))
        for i, n in enumerate([5, 4, 3, 6, 2])
    )
    packs = Packs(dataset.lengths, 8, "best_fit_decreasing")
    settings = BatchSettings(capacity=8, packs=packs)
    assert settings.units(dataset) == len(packs) == 3
    for world in (1, 2, 3):
        shares = [split_batch(dataset, [2, 0], settings, rank, world) for rank in range(world)]
        met = [set(m.input_ids[0].tolist()) for share in shares for m in share.microbatches if m.labels.max() >= 0]
        if world < 3:
            assert sorted(map(sorted, met)) == sorted(map(sorted, packs.members([2, 0])))
        assert {share.global_documents for share in shares} == {sum(map(len, packs.members([2, 0])))}


def test_the_fingerprint_follows_the_division():
    lengths = lognormal(200)
    dataset = SftDataset.from_examples(
        Example(input_ids=np.zeros(n, np.int32), loss_mask=np.zeros(n, np.uint8)) for n in lengths
    )
    by_document = BatchSettings(capacity=2048)
    assert by_document.fingerprint(dataset) == dataset.fingerprint
    made = {
        BatchSettings(capacity=size, packs=Packs(lengths, size, algorithm)).fingerprint(dataset)
        for size in (2048, 4096)
        for algorithm in ("best_fit_decreasing", "first_fit_shuffle")
    }
    assert len(made) == 4
    assert dataset.fingerprint not in made
    again = BatchSettings(capacity=2048, packs=Packs(lengths, 2048, "best_fit_decreasing"))
    assert again.fingerprint(dataset) in made
