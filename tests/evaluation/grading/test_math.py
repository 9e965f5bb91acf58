"""Grading gives the verdicts of NeMo-Skills' grader, and finds the answer in a text as it does."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.evaluation.grading.math import (
    Comparison,
    _compare_texts,
    extract_boxed,
    extract_pattern,
    math_equal,
    quick_verdict,
)

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "D" / "math_equal.json").read_text())
SETTLED = [pair for pair in GOLDEN["pairs"] if not pair["doubtful"]]


@pytest.mark.parametrize("pair", SETTLED, ids=lambda pair: f"{pair['gt']} / {pair['pred']}")
def test_verdicts_equal_the_original_s(pair):
    comparison = Comparison(take_modulo=pair.get("take_modulo"))
    assert math_equal(pair["gt"], pair["pred"], comparison) == pair["equal"]


def test_the_reference_holds_verdicts_of_both_kinds():
    """Negative control: a grader that always says yes, or always no, would fail on many."""
    verdicts = [pair["equal"] for pair in SETTLED]
    assert verdicts.count(True) > 30
    assert verdicts.count(False) >= 6


@pytest.mark.parametrize("case", GOLDEN["extract"], ids=lambda case: case["text"])
def test_extraction_equals_the_original_s(case):
    found = extract_pattern(case["text"], case["regex"]) if "regex" in case else extract_boxed(case["text"])
    assert found == case["answer"]


def test_the_last_box_counts():
    assert extract_boxed(r"first \boxed{1}, no: \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
    assert extract_boxed("no box") is None


@given(st.text(alphabet="{}ab\\", max_size=12).filter(lambda t: t.count("{") == t.count("}")), st.text(max_size=20))
def test_balanced_contents_come_out_whole(inner, before):
    depth = 0
    for character in inner:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            return
    if "\\boxed" not in inner:
        assert extract_boxed(f"{before}\\boxed{{{inner}}} after") == inner


@given(st.from_regex(r"[0-9]{1,25}", fullmatch=True), st.from_regex(r"[0-9]{1,25}", fullmatch=True))
def test_the_short_cut_for_digits_says_what_the_long_way_would(left, right):
    for a, b in ((left, right), (left, left)):
        assert quick_verdict(a, b, Comparison()) == _compare_texts(a, b)[0]
        assert _compare_texts(a, b)[1] or a == b


def test_there_is_no_short_cut_for_anything_else():
    for pair in (("1/2", "0.5"), ("-1", "-1"), ("1 000", "1000"), ("x", "x")):
        assert quick_verdict(*pair, Comparison()) is None
