"""What of a conversation is trained: spans by structure, Hugging Face's marks, and NeMo RL's algorithm."""

import re
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import DataError
from skills_pipe.training.data.build import DataSettings, mask_rules
from skills_pipe.training.data.encode import SampleEncoder
from skills_pipe.training.data.mask import MaskRules, make_samples
from skills_pipe.training.data.rows import Conversation
from skills_pipe.training.data.template import ChatTemplate, resolve_template
from tests.training.data import golden
from tests.training.tiny import CHAT_TEMPLATE, tiny_tokenizer

TEMPLATES = ("chatml", "llama3", "qwen3")
STOPS = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "qwen3": "<|im_end|>"}


def template_of(name, **variables):
    return resolve_template(golden.template_setting(name), golden.tokenizer(name), variables, "chat")


def rules_of(name, **changes):
    return mask_rules(golden.tokenizer(name), DataSettings(max_length=1000, **changes))


def chat(*messages, tools=None):
    """A conversation from (role, content) pairs."""
    listed = [{"role": role, "content": content} for role, content in messages]
    return Conversation(messages=listed, tools=tools, form="chat", where="test")


def trained(samples):
    return [[segment.text for segment in sample.segments if segment.trained] for sample in samples]


# NeMo RL's algorithm, token for token


@pytest.mark.parametrize("log", [log for log in golden.message_logs() if not log["bug_in_original"]])
def test_train_on_header_gives_nemo_rls_tokens_and_mask(log):
    rules = rules_of(
        log["template"],
        add_bos=log["add_bos"],
        add_eos=log["add_eos"],
        train_on_header=True,
        generation_prompt=log["add_generation_prompt"],
    )
    samples = make_samples(golden.conversation(log["conversation"]), template_of(log["template"]), rules)
    [example] = SampleEncoder(golden.tokenizer(log["template"])).encode(samples)
    assert example.input_ids.tolist() == list(chain.from_iterable(log["token_ids"]))
    expected = np.repeat(log["loss_mask"], [len(ids) for ids in log["token_ids"]])
    assert example.loss_mask.tolist() == expected.tolist()
    assert example.loss_mask.sum() == log["trained_tokens"]


@pytest.mark.parametrize("log", [log for log in golden.message_logs() if log["bug_in_original"]])
def test_what_nemo_rl_would_train_twice_is_an_error(log):
    rules = rules_of(log["template"], train_on_header=True, generation_prompt=log["add_generation_prompt"])
    with pytest.raises(DataError, match=r"changes earlier messages later on.*train_on_header=false"):
        make_samples(golden.conversation(log["conversation"]), template_of(log["template"]), rules)


def test_the_header_makes_the_difference_to_our_own_mask():
    conversation, template = golden.conversation("multi"), template_of("chatml")
    [compatible] = make_samples(conversation, template, rules_of("chatml", train_on_header=True))
    [own] = make_samples(conversation, template, rules_of("chatml"))
    assert compatible.text == own.text
    assert [text.removeprefix("<|im_start|>assistant\n").removesuffix("\n") for text in trained([compatible])[0]] == (
        trained([own])[0]
    )


# Spans by structure


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chatml", [["It is 4.<|im_end|>", "That is 21.<|im_end|>"]]),
        ("llama3", [["It is 4.<|eot_id|>", "That is 21.<|eot_id|>"]]),
        # Each turn as the model wrote it: with its reasoning, which later turns no longer show.
        (
            "qwen3",
            [["<think>\n\n</think>\n\nIt is 4.<|im_end|>"], ["<think>\n\n</think>\n\nThat is 21.<|im_end|>"]],
        ),
        ("passthrough", [["It is 4.", "That is 21.</s>"]]),
        ("sft_yaml", [[" It is 4.", " That is 21.</s>"]]),
    ],
)
def test_answers_are_trained_with_their_stop_token_and_without_header(name, expected):
    samples = make_samples(golden.conversation("multi"), template_of(name), rules_of(name))
    assert trained(samples) == expected


def test_reasoning_is_trained_where_the_model_wrote_it_and_never_twice():
    first, second = make_samples(golden.conversation("think"), template_of("qwen3"), rules_of("qwen3"))
    assert trained([first]) == [["<think>\none and one\n</think>\n\n2<|im_end|>"]]
    assert trained([second]) == [["<think>\ndouble\n</think>\n\n4<|im_end|>"]]
    assert "one and one" not in second.text


def test_a_generation_prompt_that_closes_the_reasoning_is_not_trained():
    template = template_of("qwen3", enable_thinking=False)
    [sample] = make_samples(chat(("user", "1+1?"), ("assistant", "2")), template, rules_of("qwen3"))
    assert trained([sample]) == [["2<|im_end|>"]]


def test_tool_calls_and_tool_answers_keep_one_document():
    samples = make_samples(golden.conversation("tools"), template_of("qwen3"), rules_of("qwen3"))
    assert len(samples) == 1
    assert samples[0].turns == samples[0].stopped == 2
    assert "22°C, sunny" in samples[0].text
    assert "22°C, sunny" not in "".join(trained(samples)[0])


def test_only_the_final_turn_on_demand():
    conversation = golden.conversation("multi")
    for name in TEMPLATES:
        [sample] = make_samples(conversation, template_of(name), rules_of(name, only_final=True))
        assert len(trained([sample])[0]) == 1
        assert "That is 21." in trained([sample])[0][0]


fragments = st.sampled_from(
    [
        "a",
        " b",
        "\n",
        "  ",
        "é",
        "1 + 1",
        "assistant",
        "<|im_start|>assistant\n",
        "user\n",
        "<|eot_id|>",
        "<think>",
        "</think>",
        "文",
    ]
)
contents = st.lists(fragments, min_size=1, max_size=5).map("".join).filter(str.strip)


@st.composite
def conversations(draw):
    messages = [("system", draw(contents))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages += [("user", draw(contents)), ("assistant", draw(contents))]
    return chat(*messages)


@pytest.mark.parametrize("name", TEMPLATES)
@given(conversation=conversations())
def test_each_turn_is_trained_once_after_exactly_what_the_model_sees(name, conversation):
    template = template_of(name)
    rules = MaskRules(stops=(STOPS[name],))
    turns = [at for at, message in enumerate(conversation.messages) if message["role"] == "assistant"]
    seen = {template.render(conversation.messages[:at], None, prompt=True): at for at in turns}
    met = []
    for sample in make_samples(conversation, template, rules):
        before = ""
        for segment in sample.segments:
            if segment.trained:
                at = seen[before]
                told = template.render(conversation.messages[: at + 1], None)
                assert before + segment.text == told.rstrip()
                met.append(at)
            before += segment.text
    assert sorted(met) == turns


@pytest.mark.parametrize("name", ["chatml", "llama3"])
@given(conversation=conversations())
def test_templates_that_keep_earlier_turns_make_one_document(name, conversation):
    template = template_of(name)
    [sample] = make_samples(conversation, template, MaskRules(stops=(STOPS[name],)))
    assert sample.text == template.render(conversation.messages, None)


# Hugging Face's marks

PLAIN_TEMPLATE = re.sub(r"{% (end)?generation %}", "", CHAT_TEMPLATE)


def hugging_face(tokenizer, messages, template):
    return tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )


@pytest.mark.parametrize("text", [CHAT_TEMPLATE, PLAIN_TEMPLATE], ids=["marked", "by-structure"])
def test_ids_and_mask_equal_hugging_faces(text):
    tokenizer = tiny_tokenizer()
    conversation = golden.conversation("multi")
    template = resolve_template(text, tokenizer, None, "chat")
    samples = make_samples(conversation, template, mask_rules(tokenizer, DataSettings(max_length=1000)))
    [example] = SampleEncoder(tokenizer).encode(samples)
    expected = hugging_face(tokenizer, conversation.messages, CHAT_TEMPLATE)
    assert example.input_ids.tolist() == expected["input_ids"]
    assert example.loss_mask.tolist() == expected["assistant_masks"]
    assert 0 < example.loss_mask.sum() < len(example.loss_mask)


def test_a_line_break_inside_the_marks_is_the_only_difference():
    tokenizer = tiny_tokenizer()
    conversation = golden.conversation("multi")
    moved = CHAT_TEMPLATE.replace("{% endgeneration %}{{ '\n' }}", "{{ '\n' }}{% endgeneration %}")
    assert moved != CHAT_TEMPLATE
    rules = mask_rules(tokenizer, DataSettings(max_length=1000))
    masks = {}
    for key, text in (("marked", moved), ("structure", PLAIN_TEMPLATE)):
        samples = make_samples(conversation, resolve_template(text, tokenizer, None, "chat"), rules)
        [example] = SampleEncoder(tokenizer).encode(samples)
        masks[key] = example.loss_mask
    assert masks["marked"].tolist() == hugging_face(tokenizer, conversation.messages, moved)["assistant_masks"]
    line_break = tokenizer.convert_tokens_to_ids("Ċ")
    extra = np.flatnonzero(masks["marked"] != masks["structure"])
    assert example.input_ids[extra].tolist() == [line_break] * 2


# Beginnings and ends


def test_a_document_begins_and_ends_with_its_tokens_once():
    conversation = chat(("user", "IN"), ("assistant", "OUT"))
    [sample] = make_samples(conversation, template_of("passthrough"), rules_of("passthrough"))
    assert sample.text == "<s>INOUT</s>"
    assert (sample.turns, sample.stopped) == (1, 1)
    again = chat(("user", "<s>IN"), ("assistant", "OUT</s>\n"))
    [sample] = make_samples(again, template_of("passthrough"), rules_of("passthrough"))
    assert sample.text == "<s>INOUT</s>\n"
    assert trained([sample]) == [["OUT</s>"]]
    bare = rules_of("passthrough", add_bos=False, add_eos=False)
    [sample] = make_samples(conversation, template_of("passthrough"), bare)
    assert sample.text == "INOUT"
    assert (sample.turns, sample.stopped) == (1, 0)


# Templates from which the answer cannot be told


def test_a_generation_prompt_that_answers_do_not_begin_with_is_an_error():
    template = ChatTemplate(
        text="{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant><think>{% endif %}"
    )
    with pytest.raises(DataError, match=r"message 2 does not follow .*{% generation %}"):
        make_samples(chat(("user", "q"), ("assistant", "a")), template, MaskRules())


def test_without_generation_prompt_the_header_is_found_by_the_content():
    template = ChatTemplate(text="{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}\n{% endfor %}")
    [sample] = make_samples(chat(("user", "q"), ("assistant", " a ")), template, MaskRules())
    assert [segment.text for segment in sample.segments] == ["<user>q\n<assistant>", "a\n"]


def test_without_generation_prompt_the_header_may_hold_the_content_itself():
    template = ChatTemplate(text="{% for m in messages %}<{{ m.role }}>{{ m.content | upper }}{% endfor %}")
    [sample] = make_samples(chat(("user", "q"), ("assistant", "assistant")), template, MaskRules())
    assert trained([sample]) == [["ASSISTANT"]]


def test_without_generation_prompt_a_header_that_depends_on_the_content_is_an_error():
    text = "{% for m in messages %}<{{ m.role }} {{ m.content | length }}>{{ m.content }}{% endfor %}"
    with pytest.raises(DataError, match="message 2 does not follow"):
        make_samples(chat(("user", "q"), ("assistant", "a")), ChatTemplate(text=text), MaskRules())


def test_without_generation_prompt_a_content_that_is_left_out_is_an_error():
    text = "{% for m in messages %}<{{ m.role }}>{{ m.tool_calls[0].name if m.tool_calls else m.content }}{% endfor %}"
    called = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}]
    conversation = Conversation(messages=called, tools=None, form="chat", where="test")
    with pytest.raises(DataError, match="leaves out the content of message 2"):
        make_samples(conversation, ChatTemplate(text=text), MaskRules())


def test_what_the_template_refuses_is_told():
    template = ChatTemplate(text="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(DataError, match="the chat template refuses the row: roles must alternate"):
        make_samples(chat(("user", "q"), ("assistant", "a")), template, MaskRules())


# Templates that take the reasoning out of every answer, and ask for it all the same

R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{% set content = m.content %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<|Assistant|>' + content + eos_token }}{% else %}{{ '<|User|>' + m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)


def r1(*messages):
    template = ChatTemplate(text=R1, variables={"bos_token": "<s>", "eos_token": "</s>"})
    return make_samples(chat(*messages), template, MaskRules(stops=("</s>",)))


def test_reasoning_that_the_template_takes_out_of_every_answer_is_trained_as_it_was_written():
    first, second = r1(
        ("user", "q"),
        ("assistant", "<think>\none\n</think>\n\n1"),
        ("user", "r"),
        ("assistant", "<think>\ntwo\n</think>\n\n2"),
    )
    assert first.text == "<s><|User|>q<|Assistant|><think>\none\n</think>\n\n1</s>"
    # The turn before is what the model sees of it: without its reasoning.
    assert second.text == "<s><|User|>q<|Assistant|>\n\n1</s><|User|>r<|Assistant|><think>\ntwo\n</think>\n\n2</s>"
    assert trained([first, second]) == [["one\n</think>\n\n1</s>"], ["two\n</think>\n\n2</s>"]]
    assert (first.turns, first.stopped) == (1, 1)


@pytest.mark.parametrize("answer", ["1", "one\n</think>1", "<think>one</think>1", " <think>\none\n</think>1"])
def test_an_answer_that_does_not_begin_as_it_is_asked_for_is_told(answer):
    with pytest.raises(DataError, match=r"message 2 does not follow .* ends in '<think>\\n'.*begin the message so"):
        r1(("user", "q"), ("assistant", answer))


def test_what_the_template_changes_in_an_answer_besides_is_an_error():
    template = ChatTemplate(
        text=R1.replace("content + eos", "(content | upper) + eos"), variables={"eos_token": "</s>"}
    )
    row = chat(("user", "q"), ("assistant", "<think>\none\n</think>a"))
    with pytest.raises(DataError, match="message 2 does not follow"):
        make_samples(row, template, MaskRules())
