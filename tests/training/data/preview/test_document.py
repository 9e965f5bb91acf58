"""Documents token by token."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.training.data.dataset import Example
from skills_pipe.training.data.preview.document import document_of, token_texts
from tests.training.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_the_texts_of_tokens_make_the_text(text):
    ids = TOKENIZER.encode(text)
    assert "".join(token_texts(ids, TOKENIZER)) == TOKENIZER.decode(ids) == text


def test_a_character_stands_at_its_last_token():
    assert token_texts(TOKENIZER.encode("a日b"), TOKENIZER) == ["a", "", "", "日", "b"]


def test_a_character_that_was_cut_off_is_seen():
    assert token_texts(TOKENIZER.encode("a日")[:-1], TOKENIZER) == ["a", "", "�"]


@pytest.mark.parametrize("ids", [[], [300]])
def test_no_tokens_and_unknown_ones(ids):
    assert token_texts(ids, TOKENIZER) == [""] * len(ids)


def test_weights_are_kept():
    example = Example(input_ids=np.array([40, 41, 42], np.int32), loss_mask=np.array([0, 0.5, 1], np.float32))
    document = document_of(example, TOKENIZER)
    assert [token.weight for token in document.tokens] == [0, 0.5, 1]
    assert [token.id for token in document.tokens] == [40, 41, 42]
    assert document.trained == 2
