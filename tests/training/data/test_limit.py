import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.training.data.dataset import Example
from skills_pipe.training.data.limit import truncate

BOS, STOP = 1, 2


def example(prompt, answer):
    """BOS, prompt tokens 100.., answer tokens 200.. of which the last is STOP."""
    ids = [BOS, *range(100, 100 + prompt), *range(200, 200 + answer - 1), STOP]
    return Example(input_ids=np.array(ids, np.int32), loss_mask=np.array([0] * (1 + prompt) + [1] * answer, np.uint8))


def test_a_document_that_fits_exactly_stays():
    whole = example(5, 4)
    assert truncate(whole, 10, bos_id=BOS) is whole


def test_the_oldest_of_the_prompt_goes_first_and_the_stop_token_stays():
    short = truncate(example(5, 4), 8, bos_id=BOS)
    assert short.input_ids.tolist() == [BOS, 102, 103, 104, 200, 201, 202, STOP]
    assert short.loss_mask.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_without_a_beginning_token_one_token_of_the_prompt_stays():
    short = truncate(example(5, 4), 5, bos_id=None)
    assert short.input_ids.tolist() == [104, 200, 201, 202, STOP]


def test_an_answer_too_long_by_itself_loses_its_end_and_its_stop_token():
    short = truncate(example(5, 9), 6, bos_id=BOS)
    assert short.input_ids.tolist() == [BOS, 200, 201, 202, 203, 204]
    assert STOP not in short.input_ids


@given(prompt=st.integers(0, 12), answer=st.integers(1, 12), limit=st.integers(2, 26))
def test_the_limit_holds_and_targets_go_only_when_the_prompt_is_gone(prompt, answer, limit):
    whole = example(prompt, answer)
    short = truncate(whole, limit, bos_id=BOS)
    assert len(short.input_ids) == min(limit, len(whole.input_ids))
    assert short.input_ids[0] == BOS
    assert short.loss_mask.sum() == min(answer, limit - 1)
