"""Arithmetic inside solutions is found, checked and spelled out, and nothing in it is ever run as code."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.training.prepare.arithmetic import (
    DropIncorrectArithmetic,
    NotArithmetic,
    SplitArithmetic,
    evaluate,
    find_expressions,
    solving_steps,
)


def is_dropped(text):
    return DropIncorrectArithmetic().drop_reason({"generation": text}) is not None


def split(text):
    row = {"generation": text}
    SplitArithmetic().edit(row)
    return row["generation"]


@pytest.mark.parametrize(
    "text",
    [
        "1 + 2 + 3 + 4 = 10",
        "so 2 * 3 + 4 = 6 + 4 = 10.",
        "10 / 3 + 1 = 4.3333",
        "1 / 0 + 1 = 5",
        "2 + = 5 + 1",
        "(1 + 2 = 5 + 1",
        "1 = 2",
        "() + () = 3",
    ],
)
def test_right_or_meaningless_arithmetic_stays(text):
    assert not is_dropped(text)


@pytest.mark.parametrize("text", ["3 * (1 + 7) / 4 = 3 * 8 / 4 = 100", "so 1 + 2 + 3 = 7, done", "5 - 3 - 1 = 2"])
def test_wrong_arithmetic_is_dropped(text):
    assert is_dropped(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 + 3 + 4 = 10", "1 + 2 + 3 + 4 = 3 + 3 + 4 = 6 + 4 = 10"),
        ("1 + 7 * 19 = 134", "1 + 7 * 19 = 1 + 133 = 134"),
        ("So 3 * (1 + 7) / 4 = 6 apples", "So 3 * (1 + 7) / 4 = 3 * 8 / 4 = 24 / 4 = 6 apples"),
        ("2 - 3 - 4 = -5", "2 - 3 - 4 = (-1) - 4 = -5"),
        ("1 + 2 + 3 = 7", "1 + 2 + 3 = 7"),
        ("1 + 2 = 3 = 3", "1 + 2 = 3 = 3"),
        ("nothing here", "nothing here"),
    ],
)
def test_steps_are_spelled_out_where_the_result_is_right(text, expected):
    assert split(text) == expected


EXPRESSIONS = st.recursive(
    st.integers(0, 30).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda parts: f"({' '.join(parts)})"),
    max_leaves=6,
)


@given(EXPRESSIONS)
def test_every_step_has_the_value_of_the_first(expression):
    value = evaluate(expression)
    for step in solving_steps(expression):
        assert evaluate(step) == value


@given(EXPRESSIONS, st.integers(-100, 100).filter(bool))
def test_a_right_result_is_kept_and_a_wrong_one_dropped(expression, error):
    value = evaluate(expression)
    right, wrong = f"{expression} = {value}", f"{expression} = {value + error}"
    assert not is_dropped(right)
    looked_at = len(list(find_expressions(wrong))) == 1
    assert is_dropped(wrong) == (looked_at and not math.isclose(value, value + error, rel_tol=1e-4))


@pytest.mark.parametrize("text", ["9**9**9**9", "__import__('os')", "(1).real", "1 if 1 else 2", "1" * 5000, "[1]"])
def test_code_and_giant_numbers_have_no_value(text):
    with pytest.raises(NotArithmetic):
        evaluate(text)


@given(st.text("0123456789.+-*/=() \nx", max_size=60))
def test_any_text_is_taken(text):
    is_dropped(text)
    assert isinstance(split(text), str)
