import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.training.data.dataset import Example, SftDataset

documents = st.lists(
    st.lists(st.tuples(st.integers(0, 200_000), st.booleans()), min_size=1, max_size=8), min_size=1, max_size=8
)


def example(pairs):
    ids, mask = zip(*pairs, strict=True)
    return Example(input_ids=np.array(ids, np.int32), loss_mask=np.array([0, *mask[1:]], np.uint8))


@given(documents)
def test_documents_come_back_as_they_were(pairs):
    examples = [example(document) for document in pairs]
    dataset = SftDataset.from_examples(examples)
    assert len(dataset) == len(examples)
    for index, whole in enumerate(examples):
        assert dataset[index].input_ids.tolist() == dataset[index - len(examples)].input_ids.tolist()
        assert dataset[index].input_ids.dtype == np.int32
        assert dataset[index].input_ids.tolist() == whole.input_ids.tolist()
        assert dataset[index].loss_mask.tolist() == whole.loss_mask.tolist()
    assert dataset.lengths.tolist() == [len(whole.input_ids) for whole in examples]
    assert dataset.targets.tolist() == [int(whole.loss_mask.sum()) for whole in examples]


def test_an_index_beyond_the_end_is_an_error():
    dataset = SftDataset.from_examples([example([(1, False)])])
    for index in (1, -2):
        with pytest.raises(IndexError, match=f"document {index} of 1"):
            dataset[index]


def test_the_caller_cannot_change_the_data_set():
    dataset = SftDataset.from_examples([example([(1, False), (2, True)])])
    dataset[0].loss_mask[:] = 9
    dataset[0].input_ids[:] = 9
    assert dataset[0].loss_mask.tolist() == [0, 1]
    assert dataset[0].input_ids.tolist() == [1, 2]


def test_the_fingerprint_sees_ids_masks_and_borders_but_not_the_width_of_the_ids():
    base = [example([(1, 0), (2, 1)]), example([(3, 0), (4, 1)])]
    others = [
        [example([(1, 0), (2, 1)]), example([(3, 0), (5, 1)])],
        [example([(1, 0), (2, 1)]), example([(3, 0), (4, 0)])],
        [example([(1, 0), (2, 1), (3, 0)]), example([(4, 1)])],
    ]
    prints = {SftDataset.from_examples(examples).fingerprint for examples in (base, *others)}
    assert len(prints) == 4
    narrow = SftDataset.from_examples(base)
    wide = SftDataset(
        np.array([1, 2, 3, 4], np.int32), np.array([0, 1, 0, 1], np.uint8), np.array([0, 2, 4]), narrow.report
    )
    assert wide.fingerprint == narrow.fingerprint
