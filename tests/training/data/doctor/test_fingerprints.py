"""Rows that say the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.training.data.doctor.fingerprints import Known, Repeats, note_repeat, remember, row_fingerprints
from skills_pipe.training.data.rows import Conversation, Pieces, Segment
from tests.training.data.looking import chat


def conversation(*contents, tools=None, **of_last):
    messages = chat(*contents)["messages"]
    messages[-1] |= of_last
    return Conversation(messages=messages, tools=tools, form="chat", where="a:1")


def fingerprints(*contents, **more):
    return row_fingerprints(conversation(*contents, **more))


@pytest.mark.parametrize("other", [("What  is\n1+1? ", "Two"), ("WHAT IS 1+1?", "two ")])
def test_case_and_blanks_do_not_count(other):
    assert fingerprints("What is 1+1?", "two") == fingerprints(*other)


@pytest.mark.parametrize(
    "other",
    [("What is 1+2?", "two"), ("What is 1+1?", "2"), ("What is 1+1? two", ""), ("What is 1+1?", "two", "t", "a")],
)
def test_other_words_count(other):
    assert fingerprints("What is 1+1?", "two").whole != fingerprints(*other).whole


def test_a_prompt_is_all_before_the_last_answer():
    assert fingerprints("q", "a", "r", "b").prompt == fingerprints("q", "a", "r", "c").prompt
    assert fingerprints("q", "a", "r", "b").prompt != fingerprints("q", "x", "r", "b").prompt


def test_tool_calls_are_part_of_what_is_said():
    called = [fingerprints("q", "a", tool_calls=[{"name": name}]).whole for name in ("f", "g")]
    assert len({*called, fingerprints("q", "a").whole}) == 3


def test_a_row_without_content_has_a_fingerprint():
    assert fingerprints("q", None).whole != fingerprints("q", "").whole
    assert fingerprints("q", [{"type": "text", "text": "a"}]).whole


def test_pieces_of_text_are_told_apart():
    def pieces(*segments):
        parts = tuple(Segment(text=text, trained=trained) for text, trained in segments)
        return row_fingerprints(Pieces(segments=parts, where="a:1"))

    assert pieces(("q", False), ("a", True)) == pieces(("Q ", False), ("A", True))
    assert pieces(("q", False), ("a", True)).whole != pieces(("q", True), ("a", True)).whole
    assert pieces(("q", False), ("a", True)).prompt == pieces(("q", False), ("b", True)).prompt
    assert pieces(("a", True)).prompt is None


@given(st.lists(st.tuples(st.sampled_from("qrs"), st.sampled_from("ab")), max_size=20))
def test_repeats_are_counted_as_a_slow_search_does(rows):
    known, repeats = Known(), Repeats()
    for number, row in enumerate(rows):
        found = fingerprints(*row)
        note_repeat(repeats, known, found, f"a:{number}")
        remember(known, found, f"a:{number}")
    again = [row for number, row in enumerate(rows) if row in rows[:number]]
    prompts = [
        row
        for number, row in enumerate(rows)
        if row not in rows[:number] and row[0] in [earlier[0] for earlier in rows[:number]]
    ]
    assert (repeats.rows, repeats.prompts) == (len(again), len(prompts))
    for row, earlier in repeats.examples:
        assert rows[int(row[2:])] == rows[int(earlier[2:])]
    assert len(repeats.examples) == min(3, len(again))


def test_half_a_character_in_a_tool_call_is_no_obstacle():
    one, other = (fingerprints("q", "a", tool_calls=[{"name": text}]).whole for text in ("\ud83d", "\ud83e"))
    assert one != other
