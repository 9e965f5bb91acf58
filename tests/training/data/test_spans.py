"""Tokens of a text as a whole: which are trained, by their places in characters and by their bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from skills_pipe.training.data.encode import SampleEncoder
from skills_pipe.training.data.mask import Sample
from skills_pipe.training.data.rows import Segment
from skills_pipe.training.data.spans import mask_of_tokens
from skills_pipe.training.data.token_bytes import TokenBytes
from tests.training.data.families import tokenizer
from tests.training.tiny import tiny_tokenizer


def masked(tokens, segments):
    """Mask and straddling tokens; tokens and segments given by their lengths."""
    ends = np.cumsum(tokens)
    borders = np.cumsum([length for length, _ in segments])
    values = np.array([value for _, value in segments])
    mask, straddling = mask_of_tokens(ends - tokens, ends, borders, values)
    return mask.tolist(), straddling


def test_tokens_inside_segments_have_their_value():
    assert masked([2, 1, 3], [(3, 0), (3, 1)]) == ([0, 0, 1], 0)


def test_a_token_with_any_part_of_a_trained_segment_is_trained_and_counted():
    assert masked([2, 3, 2], [(3, 0), (1, 1), (3, 0)]) == ([0, 1, 0], 1)
    assert masked([3, 3], [(2, 1), (4, 0)]) == ([1, 0], 1)


def test_segments_of_the_same_value_have_no_border():
    assert masked([4], [(2, 1), (2, 1)]) == ([1], 0)


def test_a_segment_without_text_is_touched_by_no_token():
    assert masked([2, 2], [(1, 0), (0, 1), (3, 0)]) == ([0, 0], 0)


def test_of_weights_the_greatest_counts():
    assert masked([4], [(1, 0.5), (1, 2.0), (2, 0.0)]) == ([2.0], 1)


texts = st.lists(st.sampled_from(["It is", " 4", "\n", "\n\n", "é", "🦊", "<|im_end|>", "e\u0301", "ab"]), max_size=8)
parts = st.lists(st.tuples(texts.map("".join), st.booleans()), min_size=1, max_size=5)


@given(parts)
def test_the_bytes_of_tokens_give_the_mask_that_their_places_give(segments):
    sample = Sample(
        segments=tuple(Segment(text=text, trained=trained) for text, trained in segments),
        turns=1,
        stopped=0,
        tokenize="whole",
    )
    encoder = SampleEncoder(tokenizer())
    [by_bytes] = encoder.encode([sample])
    encoding = tokenizer().backend_tokenizer.encode(sample.text, add_special_tokens=False)
    assert by_bytes.input_ids.tolist() == encoding.ids
    trained = np.repeat([int(is_trained) for _, is_trained in segments], [len(text) for text, _ in segments])
    expected = [int(trained[start:end].any()) for start, end in encoding.offsets]
    differing = [
        at for at, (mine, theirs) in enumerate(zip(by_bytes.loss_mask, expected, strict=True)) if mine != theirs
    ]
    # Of a character that is split between tokens each has the place of the whole; bytes tell more.
    assert all(at == 0 or len(sample.text[slice(*encoding.offsets[at])].encode()) > 1 for at in differing)
    assert by_bytes.loss_mask[:1].sum() == 0


def test_lengths_are_those_of_the_text():
    known = TokenBytes.of(tokenizer().backend_tokenizer)
    text = "It is é 🦊<|im_end|>\n\n"
    ids = tokenizer().encode(text, add_special_tokens=False)
    assert known.lengths[ids].sum() == len(text.encode())
    assert known.tell(text, len(text.encode()))
    assert not known.tell(text, len(text.encode()) - 1)


def test_a_text_that_the_tokenizer_would_change_is_not_told_by_bytes():
    backend = tiny_tokenizer().backend_tokenizer
    backend.normalizer = normalizers.NFC()
    known = TokenBytes.of(backend)
    assert known.normal_form == "NFC"
    assert known.tell("é", 2)
    assert not known.tell("e\u0301", 3)


@pytest.mark.parametrize("change", ["prefix space", "lowercase", "blanks taken", "words"])
def test_tokens_that_are_not_stretches_of_bytes_are_not_known(change):
    backend = tiny_tokenizer().backend_tokenizer
    assert TokenBytes.of(backend) is not None
    if change == "prefix space":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    elif change == "lowercase":
        backend.normalizer = normalizers.Lowercase()
    elif change == "blanks taken":
        backend.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    else:
        backend = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
    assert TokenBytes.of(backend) is None
