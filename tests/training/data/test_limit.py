import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.training.data.dataset import Example
from skills_pipe.training.data.encoded import Cuttable, Encoded
from skills_pipe.training.data.limit import shorten_fields, truncate

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


def test_the_first_trained_token_counts_and_not_the_one_of_the_greatest_weight():
    weights = np.array([0, 0, 0, 0.5, 0.5, 0, 0, 1, 1], np.float32)
    weighted = Example(input_ids=np.arange(9, dtype=np.int32), loss_mask=weights)
    short = truncate(weighted, 5, bos_id=0)
    assert short.input_ids.tolist() == [0, 3, 4, 5, 6]
    assert short.loss_mask.tolist() == [0, 0.5, 0.5, 0, 0]


# Fields that a format allows to shorten


def document(*parts):
    """Tokens 0, 1, 2 ... in parts of (tokens, trained, cut)."""
    ends = np.cumsum([tokens for tokens, _, _ in parts]).tolist()
    return Encoded(
        input_ids=np.arange(ends[-1], dtype=np.int32),
        loss_mask=np.repeat([np.uint8(trained) for _, trained, _ in parts], [tokens for tokens, _, _ in parts]),
        cuttable=tuple(
            Cuttable(start=end - tokens, stop=end, end=cut)
            for (tokens, _, cut), end in zip(parts, ends, strict=True)
            if cut
        ),
    )


def test_a_field_is_shortened_at_the_end_that_is_named_and_the_answer_stays():
    right = shorten_fields(document((2, 0, None), (5, 0, "right"), (3, 1, None)), 7)
    assert right.input_ids.tolist() == [0, 1, 2, 3, 7, 8, 9]
    assert right.loss_mask.tolist() == [0, 0, 0, 0, 1, 1, 1]
    left = shorten_fields(document((2, 0, None), (5, 0, "left"), (3, 1, None)), 7)
    assert left.input_ids.tolist() == [0, 1, 5, 6, 7, 8, 9]


def test_fields_share_equally_and_the_first_gives_the_odd_token():
    short = shorten_fields(document((4, 0, "right"), (4, 0, "right"), (2, 1, None)), 7)
    assert short.input_ids.tolist() == [0, 1, 4, 5, 6, 8, 9]


def test_what_a_field_is_too_short_for_the_others_give():
    short = shorten_fields(document((1, 0, "right"), (7, 0, "right"), (2, 1, None)), 4)
    assert short.input_ids.tolist() == [1, 2, 8, 9]


def test_a_document_that_fits_or_has_no_such_field_stays():
    fits = document((2, 0, "right"), (2, 1, None))
    assert shorten_fields(fits, 4) is fits
    assert len(shorten_fields(document((4, 0, None), (2, 1, None)), 3).input_ids) == 6


@given(
    rooms=st.lists(st.tuples(st.integers(0, 6), st.sampled_from([None, "left", "right"])), min_size=1, max_size=5),
    limit=st.integers(0, 30),
)
def test_no_more_is_taken_than_has_to_be_and_nothing_from_other_parts(rooms, limit):
    whole = document(*((tokens, 0, cut) for tokens, cut in rooms), (2, 1, None))
    short = shorten_fields(whole, limit)
    spare = sum(tokens for tokens, cut in rooms if cut)
    assert len(short.input_ids) == max(min(limit, len(whole.input_ids)), len(whole.input_ids) - spare)
    assert np.all(np.diff(short.input_ids) > 0)
    kept = set(range(len(whole.input_ids))) - {t for part in whole.cuttable for t in range(part.start, part.stop)}
    assert kept <= set(short.input_ids.tolist())
