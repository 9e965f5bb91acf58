"""Texts are trimmed as promised, and a processor's test cases are run with the keys in use."""

from __future__ import annotations

import pytest

from skills_pipe.errors import ConfigError, DataError
from skills_pipe.training.prepare.edits import (
    AddCodeExecutionsCounts,
    RenameFields,
    TrimPrefix,
    TrimSolutions,
    end_of_boxed_answer,
)
from skills_pipe.training.prepare.tally import Tally


def edited(processor, text):
    tally = Tally(name="test")
    (row,) = processor.apply([{"generation": text}], tally)
    assert tally.modified == (row["generation"] != text)
    return row["generation"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a \\boxed{1} b\nc", "a \\boxed{1} b"),
        ("a \\boxed{1} b", "a \\boxed{1} b"),
        ("a \\boxed{1\n2} b\nc", "a \\boxed{1\n2} b"),
        ("\\boxed{1}\n\\boxed{\\frac{1}{2}}\nc", "\\boxed{1}\n\\boxed{\\frac{1}{2}}"),
        ("no answer\nc", "no answer\nc"),
        ("never \\boxed{closed\nc", "never \\boxed{closed\nc"),
        ("\\boxed 3\nc", "\\boxed 3\nc"),
    ],
)
def test_a_solution_ends_with_the_line_of_its_last_answer(text, expected):
    assert edited(TrimSolutions(), text) == expected


def test_braces_of_an_answer_are_balanced():
    text = "x \\boxed{a{b}c} d}"
    assert text[: end_of_boxed_answer(text)] == "x \\boxed{a{b}c}"


def test_the_opening_line_is_removed_once_and_only_at_the_start():
    assert edited(TrimPrefix(), "My solution:\nMy solution:\nx") == "My solution:\nx"
    assert edited(TrimPrefix(), "So. My solution:\nx") == "So. My solution:\nx"


@pytest.mark.parametrize(
    ("text", "count"),
    [("Remaining code executions: 2.", 3), ("You have run out of code executions!", 1), ("nothing", 0)],
)
def test_code_executions_are_read_from_the_text(text, count):
    row = {"generation": text}
    AddCodeExecutionsCounts().edit(row)
    assert row["total_code_executions"] == count


@pytest.mark.parametrize("names", [{"a": "b"}, [["a", "b"]]])
def test_keys_get_other_names(names):
    row = {"a": 1, "c": 2}
    RenameFields(rename_fields=names).edit(row)
    assert row == {"b": 1, "c": 2}
    with pytest.raises(DataError, match="no 'a' to rename"):
        RenameFields(rename_fields=names).edit(row)


def test_test_cases_are_run():
    good = {"input": {"generation": "My solution:\nx"}, "output": {"generation": "x"}}
    TrimPrefix(test_cases=[good]).test()
    with pytest.raises(ConfigError, match="a test case fails"):
        TrimPrefix(test_cases=[good | {"output": {"generation": "y"}}]).test()
    with pytest.raises(ConfigError, match="a test case fails"):
        TrimPrefix(test_cases=[good | {"output": None}]).test()
    with pytest.raises(ConfigError, match="input and output"):
        TrimPrefix(test_cases=[{"input": {}}]).test()


def test_test_cases_follow_the_key_that_is_set():
    case = {"input": {"generation": "My solution:\nx"}, "output": {"generation": "x"}}
    TrimPrefix(solution_key="answer", test_cases=[case]).test()
    with pytest.raises(ConfigError, match="a test case fails"):
        TrimPrefix(solution_key="answer", test_cases=[case | {"output": {"generation": "y"}}]).test()
