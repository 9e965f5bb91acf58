"""Masks under templates in the styles of model families: Hugging Face's where marked, the same by structure."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import DataError
from skills_pipe.training.data.chunk import DataSettings, mask_rules
from skills_pipe.training.data.encode import SampleEncoder
from skills_pipe.training.data.mask import make_samples
from skills_pipe.training.data.rows import Conversation
from skills_pipe.training.data.template import resolve_template
from tests.training.data.families import STOPS, TEMPLATES, tokenizer, unmarked

STABLE = tuple(name for name in TEMPLATES if name != "qwen3")
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}

fragments = st.sampled_from(
    ["It is 4.", " b", "\n", "\n\n", "  ", "é", "文", "🦊", "1 + 1", "assistant", "user\n", "</think>", "[/INST]"]
)
contents = st.lists(fragments, min_size=1, max_size=5).map("".join)


@st.composite
def conversations(draw):
    messages = []
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(contents)})
        messages.append({"role": "assistant", "content": draw(contents)})
    return Conversation(messages=messages, tools=None, form="chat", where="test")


def documents(conversation, template, **settings):
    """Samples and their encodings; begin and end tokens are left to the template."""
    rules = mask_rules(tokenizer(), DataSettings(max_length=1000, add_bos=False, add_eos=False, **settings))
    samples = make_samples(conversation, resolve_template(template, tokenizer(), None, "chat"), rules)
    return samples, SampleEncoder(tokenizer()).encode(samples)


def hugging_face(conversation, template):
    made = tokenizer().apply_chat_template(
        conversation.messages,
        tools=conversation.tools,
        chat_template=template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    return made["input_ids"], made["assistant_masks"]


def trained_text(example):
    return tokenizer().decode(example.input_ids[example.loss_mask != 0], clean_up_tokenization_spaces=False)


def spans(sample):
    return [segment.text for segment in sample.segments if segment.trained]


@pytest.mark.parametrize("name", TEMPLATES)
@given(conversation=conversations())
def test_ids_and_mask_are_hugging_faces_where_the_template_marks_answers(name, conversation):
    _, [example] = documents(conversation, TEMPLATES[name])
    ids, mask = hugging_face(conversation, TEMPLATES[name])
    assert example.input_ids.tolist() == ids
    assert example.loss_mask.tolist() == mask
    assert 0 < example.loss_mask.sum() < len(mask)


def test_a_mask_by_segments_is_not_hugging_faces_where_tokens_would_straddle():
    conversation = Conversation(
        messages=[{"role": "user", "content": "q"}, {"role": "assistant", "content": "\n\nIt is 4."}],
        tools=None,
        form="chat",
        where="test",
    )
    ids, mask = hugging_face(conversation, TEMPLATES["chatml"])
    _, [whole] = documents(conversation, TEMPLATES["chatml"])
    _, [apart] = documents(conversation, TEMPLATES["chatml"], tokenize="segments")
    assert (whole.input_ids.tolist(), whole.loss_mask.tolist(), whole.straddling) == (ids, mask, 1)
    assert apart.input_ids.tolist() != ids
    assert trained_text(apart) == "\n\nIt is 4.<|im_end|>"
    # The straddling token holds the end of the header too.
    assert trained_text(whole) == "\n\n\nIt is 4.<|im_end|>"


@pytest.mark.parametrize("name", STABLE)
@given(conversation=conversations())
def test_structure_finds_what_the_marks_say(name, conversation):
    [marked], _ = documents(conversation, TEMPLATES[name])
    [found], [example] = documents(conversation, unmarked(TEMPLATES[name]))
    assert found.text == marked.text
    assert spans(found) == spans(marked)
    assert found.turns == found.stopped == len(spans(found))
    assert all(text.endswith(STOPS[name]) for text in spans(found))
    assert trained_text(example) == "".join(spans(found))
    assert tokenizer().decode(example.input_ids, clean_up_tokenization_spaces=False) == found.text


@given(conversation=conversations())
def test_reasoning_that_the_template_takes_out_later_is_trained_in_a_document_of_its_own(conversation):
    template = resolve_template(unmarked(TEMPLATES["qwen3"]), tokenizer(), None, "chat")
    samples, examples = documents(conversation, unmarked(TEMPLATES["qwen3"]))
    answers = [at for at, message in enumerate(conversation.messages) if message["role"] == "assistant"]
    assert len(samples) == len(answers)
    for sample, example, at in zip(samples, examples, answers, strict=True):
        seen = template.render(conversation.messages[:at], None, prompt=True)
        told = template.render(conversation.messages[: at + 1], None)
        assert sample.text == told
        assert spans(sample) == [told[len(seen) :].rstrip()]
        assert trained_text(example) == spans(sample)[0]


def test_marks_in_such_a_template_train_earlier_answers_as_they_stand_without_reasoning():
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "<think>\none\n</think>\n\n1"},
        {"role": "user", "content": "r"},
        {"role": "assistant", "content": "<think>\ntwo\n</think>\n\n2"},
    ]
    conversation = Conversation(messages=messages, tools=None, form="chat", where="test")
    [sample], _ = documents(conversation, TEMPLATES["qwen3"])
    assert spans(sample) == ["1<|im_end|>", "<think>\ntwo\n</think>\n\n2<|im_end|>"]


@pytest.mark.parametrize("template", [TEMPLATES["qwen3"], unmarked(TEMPLATES["qwen3"])], ids=["marked", "by structure"])
def test_calls_of_tools_are_trained_and_their_answers_are_not(template):
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
    messages = [
        {"role": "user", "content": "1 + 2?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "It is 3."},
    ]
    conversation = Conversation(messages=messages, tools=[TOOL], form="chat", where="test")
    [sample], [example] = documents(conversation, template)
    assert spans(sample) == [
        '<think>\n\n</think>\n\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call><|im_end|>',
        "<think>\n\n</think>\n\nIt is 3.<|im_end|>",
    ]
    ids, mask = hugging_face(conversation, TEMPLATES["qwen3"])
    assert (example.input_ids.tolist(), example.loss_mask.tolist()) == (ids, mask)
    assert conversation.messages[1]["tool_calls"] == [call]


def test_a_role_that_the_family_does_not_have_is_told():
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    conversation = Conversation(messages=messages, tools=None, form="chat", where="test")
    with pytest.raises(DataError, match="there is no system role"):
        documents(conversation, unmarked(TEMPLATES["gemma"]))


@pytest.mark.parametrize("name", TEMPLATES)
def test_begin_tokens_stand_once_whatever_the_template_gives(name):
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    conversation = Conversation(messages=messages, tools=None, form="chat", where="test")
    rules = mask_rules(tokenizer(), DataSettings(max_length=1000))
    [sample] = make_samples(conversation, resolve_template(TEMPLATES[name], tokenizer(), None, "chat"), rules)
    [example] = SampleEncoder(tokenizer()).encode([sample])
    begin = tokenizer().bos_token_id
    assert np.flatnonzero(example.input_ids == begin).tolist() == [0]
