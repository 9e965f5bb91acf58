"""Messages that say themselves whether, and how much, they are trained."""

import numpy as np
import pytest

from skills_pipe.errors import DataError
from skills_pipe.training.data.chunk import DataSettings, mask_rules
from skills_pipe.training.data.encode import SampleEncoder
from skills_pipe.training.data.mask import MaskRules, make_samples
from skills_pipe.training.data.rows import Conversation
from skills_pipe.training.data.template import ChatTemplate, resolve_template
from tests.training.data import golden
from tests.training.data.families import TEMPLATES, tokenizer, unmarked
from tests.training.tiny import tiny_tokenizer


def two_turns(first=None, second=None, question=None):
    """Two questions and answers with these keys besides role and content."""
    messages = [
        {"role": "user", "content": "q", **(question or {})},
        {"role": "assistant", "content": "a", **(first or {})},
        {"role": "user", "content": "r"},
        {"role": "assistant", "content": "b", **(second or {})},
    ]
    return Conversation(messages=messages, tools=None, form="chat", where="test")


def samples(conversation, template=TEMPLATES["chatml"], **rules):
    chosen = resolve_template(template, tokenizer(), None, "chat")
    return make_samples(conversation, chosen, MaskRules(stops=("<|im_end|>",), **rules))


def trained(sample):
    return [(segment.text, segment.weight) for segment in sample.segments if segment.trained]


@pytest.mark.parametrize("template", [TEMPLATES["chatml"], unmarked(TEMPLATES["chatml"])], ids=["marked", "structure"])
@pytest.mark.parametrize("flag", [{"train": False}, {"training": False}, {"loss": False}, {"weight": 0}])
def test_an_answer_that_is_switched_off_stays_in_the_text(template, flag):
    [sample] = samples(two_turns(first=flag), template)
    [plain] = samples(two_turns(), template)
    assert trained(sample) == [("b<|im_end|>", 1.0)]
    assert sample.text == plain.text
    assert (sample.turns, sample.stopped) == (1, 1)
    # The control: without the key both are trained.
    assert trained(plain) == [("a<|im_end|>", 1.0), ("b<|im_end|>", 1.0)]


def test_a_last_answer_that_is_switched_off_gets_no_trained_end_either():
    conversation = two_turns(second={"train": False})
    [sample] = samples(conversation, None, eos="</s>")
    assert trained(sample) == [("a", 1.0)]
    assert sample.text == "qarb</s>"
    assert (sample.turns, sample.stopped) == (1, 0)


@pytest.mark.parametrize("template", [TEMPLATES["chatml"], unmarked(TEMPLATES["chatml"])], ids=["marked", "structure"])
def test_weights_of_answers_reach_their_tokens(template):
    [sample] = samples(two_turns(first={"weight": 0.25}, second={"weight": 2}), template)
    assert trained(sample) == [("a<|im_end|>", 0.25), ("b<|im_end|>", 2.0)]
    [example] = SampleEncoder(tokenizer()).encode([sample])
    assert example.loss_mask.dtype == np.float32
    assert example.loss_mask[example.loss_mask != 0].tolist() == [0.25, 0.25, 2.0, 2.0]


def test_masks_of_weights_0_and_1_stay_bytes():
    [example] = SampleEncoder(tokenizer()).encode(samples(two_turns(first={"weight": 0}, second={"weight": 1.0})))
    assert example.loss_mask.dtype == np.uint8


def test_nulls_are_no_flags_and_the_template_sees_none():
    template = ChatTemplate(
        text="{% for m in messages %}{{ m.keys() | list | join(',') }}: {{ m.content }};{% endfor %}"
    )
    conversation = two_turns(first={"train": None, "weight": None}, second={"train": True, "weight": 3})
    [sample] = make_samples(conversation, template, MaskRules())
    assert sample.text == "role,content: q;role,content: a;role,content: r;role,content: b;"
    assert conversation.messages[3]["weight"] == 3


def test_a_turn_that_is_not_trained_makes_no_document_of_its_own():
    conversation = two_turns(first={"train": False})
    only = samples(conversation, unmarked(TEMPLATES["qwen3"]))
    assert [trained(sample) for sample in only] == [[("<think>\n\n</think>\n\nb<|im_end|>", 1.0)]]
    assert len(samples(two_turns(), unmarked(TEMPLATES["qwen3"]))) == 2


def test_a_conversation_of_no_trained_turn_is_one_document():
    [sample] = samples(two_turns(first={"train": False}, second={"train": False}), unmarked(TEMPLATES["qwen3"]))
    assert (trained(sample), sample.turns) == ([], 0)


def test_the_flags_hold_for_messages_tokenised_by_themselves():
    rules = mask_rules(golden.tokenizer("chatml"), DataSettings(max_length=99, train_on_header=True))
    template = resolve_template("default", golden.tokenizer("chatml"), None, "chat")
    [sample] = make_samples(two_turns(first={"loss": False}, second={"weight": 0.5}), template, rules)
    assert [weight for _, weight in trained(sample)] == [0.5]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"first": {"train": "no"}}, "'train' of message 2 is 'no', not true or false"),
        ({"first": {"loss": 0}}, "'loss' of message 2 is 0, not true or false"),
        ({"first": {"weight": -1}}, "'weight' of message 2 is -1, not a number from 0 on"),
        ({"first": {"weight": float("nan")}}, "'weight' of message 2 is nan"),
        ({"first": {"weight": "1"}}, "'weight' of message 2 is '1'"),
        ({"second": {"train": True, "weight": 0}}, "message 4 is and is not to be trained: train True, weight 0"),
        ({"question": {"train": True}}, r"message 1 \(user\) is to be trained by train True.*answer_only_loss=false"),
    ],
)
def test_flags_that_cannot_be_meant_are_errors(keys, message):
    with pytest.raises(DataError, match=message):
        samples(two_turns(**keys))


def test_weights_and_more_marks_than_messages_are_an_error():
    twice = TEMPLATES["chatml"].replace(
        "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}",
        "{% generation %}{{ message.content }}{% endgeneration %}{% generation %}<|im_end|>{% endgeneration %}",
    )
    assert twice != TEMPLATES["chatml"]
    assert len(trained(samples(two_turns(), twice)[0])) == 4
    with pytest.raises(DataError, match=r"marks 4 stretches of text for the 2 messages"):
        samples(two_turns(first={"weight": 0.5}), twice)


# All of the text


@pytest.mark.parametrize("template", [TEMPLATES["chatml"], unmarked(TEMPLATES["qwen3"]), None])
def test_all_of_the_text_is_one_document_and_all_of_it_trained(template):
    conversation = two_turns(first={"train": False}, question={"train": True})
    [sample] = samples(conversation, template, answers_only=False)
    assert [segment.trained for segment in sample.segments] == [True]
    [example] = SampleEncoder(tokenizer()).encode([sample])
    assert example.loss_mask.tolist() == [0] + [1] * (len(example.input_ids) - 1)


def test_all_of_the_text_message_by_message():
    rules = MaskRules(bos="<bos>", train_on_header=True, answers_only=False)
    template = resolve_template(None, tiny_tokenizer(), None, "chat")
    [sample] = make_samples(two_turns(), template, rules)
    assert all(segment.trained for segment in sample.segments)
    assert sample.text == "<bos>qarb"
