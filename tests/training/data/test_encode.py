import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from skills_pipe.training.data.encode import SampleEncoder
from skills_pipe.training.data.mask import Sample
from skills_pipe.training.data.rows import Segment
from tests.training.tiny import tiny_tokenizer

TEXT = ["<|h|>\n\nIt is 4.", "<|h|>\n\nThat is 21.\n\n", "question?\n\nanswer. It is so.\n\n"] * 20


def trained_on_text(pre_tokenizer, decoder, alphabet=()):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoder
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|h|>"], initial_alphabet=list(alphabet), show_progress=False
    )
    backend.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|h|>")


@pytest.fixture(scope="module")
def gpt2_style():
    """Byte-level with GPT-2's splitting: two line breaks are one token at the end of a text, two before a word."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained_on_text(pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(), alphabet)


@pytest.fixture(scope="module")
def sentencepiece_style():
    """Every text begins with a space that it does not have: pieces of a text are not tokenised as in the text."""
    return trained_on_text(pre_tokenizers.Metaspace(prepend_scheme="always"), decoders.Metaspace())


def sample(*parts):
    return Sample(segments=tuple(Segment(text=text, trained=trained) for text, trained in parts), turns=1, stopped=0)


def masked_text(tokenizer, example):
    return tokenizer.decode(example.input_ids[example.loss_mask == 1], clean_up_tokenization_spaces=False)


def test_what_the_model_is_given_is_tokenised_as_when_it_generates(gpt2_style):
    prompt, answer = "<|h|>\n\n", "It is 4."
    [example] = SampleEncoder(gpt2_style).encode([sample((prompt, False), (answer, True))])
    given_ids = gpt2_style.encode(prompt)
    assert example.input_ids[: len(given_ids)].tolist() == given_ids
    assert masked_text(gpt2_style, example) == answer
    # The whole text at once is tokenised differently: the model would be trained on a prompt that it never sees.
    assert gpt2_style.encode(prompt + answer)[: len(given_ids)] != given_ids


def test_samples_with_other_tokens_as_one_text_are_counted(gpt2_style):
    borders_between_tokens = sample(("<|h|>", False), ("It is 4.", True))
    borders_inside = sample(("<|h|>\n\n", False), ("It is 4.", True))
    assert SampleEncoder(gpt2_style).count_differing([borders_between_tokens, borders_inside]) == 1


def test_pieces_are_not_cut_where_that_would_add_spaces(sentencepiece_style):
    encoder = SampleEncoder(sentencepiece_style)
    assert not encoder.cuts
    text = "question?answer. It is so."
    [example] = encoder.encode([sample((text[:9], False), (text[9:16], True), (text[16:], False))])
    assert example.input_ids.tolist() == sentencepiece_style.encode(text)
    assert masked_text(sentencepiece_style, example).strip() == text[9:16]


def test_cutting_there_would_have_changed_the_text(sentencepiece_style):
    pieces = sentencepiece_style.encode("question?") + sentencepiece_style.encode("answer.")
    assert sentencepiece_style.decode(pieces) != "question?answer."


def test_byte_level_tokenizers_are_cut(gpt2_style):
    assert SampleEncoder(gpt2_style).cuts
    assert SampleEncoder(tiny_tokenizer()).cuts


parts = st.lists(st.tuples(st.text(max_size=8), st.booleans()), max_size=6)


@given(batch=st.lists(parts, max_size=4))
def test_bytes_in_bytes_out_and_the_mask_follows_the_segments(batch):
    tokenizer = tiny_tokenizer()
    examples = SampleEncoder(tokenizer).encode([sample(*segments) for segments in batch])
    for segments, example in zip(batch, examples, strict=True):
        lengths = [len(tokenizer.encode(text)) for text, _ in segments]
        expected = np.repeat([int(trained) for _, trained in segments], lengths)
        expected[:1] = 0
        assert example.loss_mask.tolist() == expected.tolist()
        assert tokenizer.decode(example.input_ids) == "".join(text for text, _ in segments)


def test_the_first_token_is_never_trained():
    [example] = SampleEncoder(tiny_tokenizer()).encode([sample(("abc", True))])
    assert example.loss_mask.tolist() == [0, 1, 1]


def test_settings_left_on_the_tokenizer_do_not_shorten_documents():
    tokenizer = tiny_tokenizer()
    tokenizer("x" * 9, truncation=True, max_length=4, padding="max_length")
    [example] = SampleEncoder(tokenizer).encode([sample(("x" * 9, False))])
    assert len(example.input_ids) == 9


def test_special_tokens_are_split_only_where_the_tokenizer_is_said_to():
    tokenizer = tiny_tokenizer()
    tokenizer("<bos>", split_special_tokens=True)
    [example] = SampleEncoder(tokenizer).encode([sample(("<bos>", False))])
    assert example.input_ids.tolist() == [tokenizer.bos_token_id]
    tokenizer.split_special_tokens = True
    [example] = SampleEncoder(tokenizer).encode([sample(("<bos>", False))])
    assert example.input_ids.tolist() == tokenizer("<bos>", add_special_tokens=False)["input_ids"]
    assert len(example.input_ids) == 5
