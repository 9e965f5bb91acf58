"""Formats that are neither messages nor pairs: the text of each row, and which of it is trained."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.schema.data import ChatTokens
from skills_pipe.training.data.rows import BadRow, Conversation, Pieces
from skills_pipe.training.data.sources.aligner_chat import AlignerChat
from skills_pipe.training.data.sources.aligner_prompt_response import AlignerPromptResponse
from skills_pipe.training.data.sources.alpaca import Alpaca, alpaca_prompt
from skills_pipe.training.data.sources.open_assistant import SYSTEM, OpenAssistant
from skills_pipe.training.data.sources.squad import Squad
from skills_pipe.training.data.sources.texts import Texts


def rows(row_format, value):
    return list(row_format.rows(value, "here"))


def pieces(row_format, value):
    [row] = rows(row_format, value)
    assert isinstance(row, Pieces), row
    return row.segments


def text(segments, *, trained=None):
    return "".join(segment.text for segment in segments if trained is None or segment.trained == trained)


def what(row_format, value):
    [row] = rows(row_format, value)
    assert isinstance(row, BadRow)
    return row.what


# Alpaca


ALPACA_TEXT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n"
)
ALPACA_TEXT_ALONE = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Response:\n"
)


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"instruction": "Add.", "input": "1 and 2", "output": "3"}, ALPACA_TEXT),
        ({"instruction": "Add.", "input": "", "output": "3"}, ALPACA_TEXT_ALONE),
        ({"instruction": "Add.", "input": None, "output": "3"}, ALPACA_TEXT_ALONE),
        ({"instruction": "Add.", "output": "3"}, ALPACA_TEXT_ALONE),
    ],
)
def test_alpaca_asks_in_its_own_words(row, prompt):
    [conversation] = rows(Alpaca(), row)
    assert isinstance(conversation, Conversation)
    assert [message["content"] for message in conversation.messages] == [prompt, "3"]
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"]
    assert prompt == alpaca_prompt(row["instruction"], row.get("input") or "")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ([], "not a JSON object"),
        ({"instruction": "Add."}, "'output' is missing"),
        ({"input": "x", "output": "3"}, "'instruction' is missing"),
        ({"instruction": "Add.", "output": 3}, "'output' is int, not text"),
    ],
)
def test_what_alpaca_needs(row, fault):
    assert what(Alpaca(), row) == fault


# NeMo-Aligner, prompt and response


def test_values_stand_at_their_places_without_blanks_around_them():
    segments = pieces(AlignerPromptResponse(), {"input": "  2+2? ", "output": " 4 "})
    assert [(s.text, s.trained, s.cut) for s in segments] == [("2+2?", False, "right"), (" 4", True, None)]


def test_a_template_keeps_its_own_text():
    template = AlignerPromptResponse(
        prompt_template=r"Passage:  {passage}\n\nFrage: {question}\nAntwört:{output}",
        truncation_field="passage, question",
        truncation_method="left",
    )
    segments = pieces(template, {"passage": "P", "question": "Q", "output": "A"})
    assert text(segments) == "Passage:  P\n\nFrage: Q\nAntwört:A"
    assert text(segments, trained=True) == "A"
    assert [segment.text for segment in segments if segment.cut == "left"] == ["  P", " Q"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"prompt_template": "{input} {output}."}, r"does not end with the answer .*data\.prompt_template"),
        ({"prompt_template": "no place"}, "does not end with the answer"),
        ({"truncation_field": "question"}, r"'question' is no key of the prompt .*data\.truncation_field.*: input"),
        ({"truncation_field": "output"}, "'output' is no key of the prompt"),
    ],
)
def test_a_template_that_cannot_be_used(keys, message):
    with pytest.raises(ConfigError, match=message):
        AlignerPromptResponse(**keys)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"input": "q"}, "no 'output' among its keys 'input'"),
        ({"input": 1, "output": "a"}, "'input' is int, not text"),
        ("text", "not a JSON object"),
    ],
)
def test_rows_that_do_not_fit_a_template(row, fault):
    assert what(AlignerPromptResponse(), row) == fault


# NeMo-Aligner, chat

TURNS = [
    {"from": "User", "value": "hi"},
    {"from": "Assistant", "value": "yo", "label": "q:4"},
    {"from": "User", "value": "ok"},
    {"from": "Assistant", "value": "bye", "label": "q:3"},
]


def chat(turns=TURNS, **keys):
    return {"system": "S", "conversations": turns, "mask": "User", **keys}


@pytest.mark.parametrize(
    ("kind", "whole", "trained"),
    [
        (
            "VALUE_TO_TEXT",
            "\x00System\nS\n\x11User\nhi\n\x11Assistant\n\x12q:4\nyo\n\x11User\nok\n\x11Assistant\n\x12q:3\nbye\n\x11",
            "yo\n\x11bye\n\x11",
        ),
        (
            None,
            "\x00System\nS\n\x11User\nhi\n\x11Assistant\nyo\n\x11User\nok\n\x11Assistant\nbye\n\x11",
            "yo\n\x11bye\n\x11",
        ),
        (
            "TEXT_TO_VALUE",
            "\x00System\nS\n\x11User\nhi\n\x11Assistant\nyo\n\x12q:4\n\x11User\nok\n\x11Assistant\nbye\n\x12q:3\n\x11",
            "q:4\n\x11q:3\n\x11",
        ),
    ],
)
def test_a_chat_of_nemo_aligner(kind, whole, trained):
    segments = pieces(AlignerChat(), chat(type=kind))
    assert text(segments) == whole
    assert text(segments, trained=True) == trained


def test_a_first_turn_that_is_to_be_labelled_is_trained():
    turns = [
        {"from": "Assistant", "value": "a", "label": "1"},
        {"from": "User", "value": "b"},
        {"from": "Assistant", "value": "c"},
    ]
    segments = pieces(AlignerChat(), chat(turns, type="TEXT_TO_VALUE"))
    # A turn without a label is trained as text.
    assert text(segments, trained=True) == "1\n\x11c\n\x11"
    assert text(pieces(AlignerChat(), chat(turns)), trained=True) == "c\n\x11"


def test_other_speakers_and_other_tokens():
    turns = [{"from": "Bot", "value": "a"}, {"from": "Me", "value": "b"}, {"from": "Bot", "value": "c"}]
    tokens = ChatTokens(system_turn_start="<s>", turn_start="<t>", end_of_turn="</t>", end_of_name=":")
    segments = pieces(AlignerChat(tokens=tokens), chat(turns, mask="Bot"))
    assert text(segments) == "<s>System:S</t><t>Bot:a</t><t>Me:b</t><t>Bot:c</t>"
    assert text(segments, trained=True) == "b</t><t>"


@given(
    st.lists(st.sampled_from(TURNS), min_size=1, max_size=6), st.sampled_from([None, "VALUE_TO_TEXT", "TEXT_TO_VALUE"])
)
def test_no_text_is_lost_and_neighbours_differ(turns, kind):
    value = chat(turns, type=kind)
    if all(turn["from"] != "User" for turn in turns):
        assert what(AlignerChat(), value).startswith("no turn is from 'User'")
        return
    segments = pieces(AlignerChat(), value)
    assert all(one.trained != two.trained for one, two in pairwise(segments))
    said = [turn["value"] for turn in turns]
    assert text(segments).count("\x11") == len(turns) + (turns[-1]["from"] != "User")
    assert [part for part in said if f"\n{part}\n" in text(segments)] == said
    assert "hi" not in text(segments, trained=True), "the masked speaker's words"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"conversations": []}, "'conversations' is not a list of one turn or more"),
        ({"conversations": [{"from": "User"}]}, "turn 1 has no 'from' and 'value' of text"),
        (chat([{"from": "User", "value": "x", "label": 4}]), "the label of turn 1 is int, not text"),
        (chat(type="VALUE"), "the type 'VALUE' is neither VALUE_TO_TEXT nor TEXT_TO_VALUE"),
        (chat(mask="Human"), "no turn is from 'Human', whose turns are not to be trained ('mask')"),
    ],
)
def test_a_chat_that_does_not_fit(row, fault):
    assert what(AlignerChat(), row) == fault


def test_messages_among_chats_are_read_as_messages():
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    [row] = rows(AlignerChat(), {"messages": messages})
    assert isinstance(row, Conversation)
    assert row.messages == messages


# trlX


@pytest.mark.parametrize("value", ["a text", {"text": "a text"}])
def test_a_text_is_trained_as_a_whole(value):
    assert [(s.text, s.trained) for s in pieces(Texts(), value)] == [("a text", True)]


def test_of_a_dialogue_the_outputs_are_trained():
    segments = pieces(Texts(), ["q", "a", "r", "b"])
    assert [(s.text, s.trained) for s in segments] == [("q", False), ("a", True), ("r", False), ("b", True)]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (3, "int is neither a text nor a list of texts"),
        ([], "list is neither a text"),
        (["q", 1], "list is neither"),
        (["q", "a", "r"], "a dialogue of 3 texts; each prompt needs an output"),
        ({"txt": "x"}, "no 'text' among its keys 'txt'"),
    ],
)
def test_samples_that_do_not_fit(value, fault):
    assert what(Texts(), value).startswith(fault)


# Datasets by name


def tree(role, said, *replies):
    return {"role": role, "text": said, "replies": list(replies)}


def test_each_way_through_a_tree_is_a_conversation_of_its_own():
    root = tree(
        "prompter",
        "q",
        tree("assistant", "a", tree("prompter", "q2", tree("assistant", "a2"))),
        tree("assistant", "b", tree("prompter", "left open"), tree("prompter", "left open too")),
    )
    found = rows(OpenAssistant(), {"prompt": root})
    assert [[message["content"] for message in row.messages] for row in found] == [
        [SYSTEM, "q", "a", "q2", "a2"],
        [SYSTEM, "q", "b"],
    ]
    assert [message["role"] for message in found[0].messages] == ["system", "user", "assistant", "user", "assistant"]
    assert found[1].where.startswith("here, path ")


def test_a_question_without_a_reply_is_no_conversation():
    assert rows(OpenAssistant(), {"prompt": tree("prompter", "q")}) == []
    assert "no tree of messages" in what(OpenAssistant(), {"text": "q"})


def test_a_deep_tree_is_no_obstacle():
    root = leaf = tree("prompter", "0")
    for depth in range(1, 3000):
        leaf["replies"] = [tree("assistant" if depth % 2 else "prompter", str(depth))]
        leaf = leaf["replies"][0]
    [row] = rows(OpenAssistant(), {"prompt": root})
    assert len(row.messages) == 3001


def test_squad_answers_by_the_first_answer():
    [row] = rows(Squad(), {"context": "c", "question": "q", "answers": {"text": ["a", "b"], "answer_start": [0, 1]}})
    assert [(m["role"], m["content"]) for m in row.messages] == [("system", "c"), ("user", "q"), ("assistant", "a")]
    assert "at least one answer" in what(Squad(), {"context": "c", "question": "q", "answers": {"text": []}})
    [row] = rows(Squad(), {"context": "c", "question": "q", "answers": {"text": "Paris"}})
    assert row.messages[-1]["content"] == "Paris"
    assert "its keys are 'question'" in what(Squad(), {"question": "q"})
