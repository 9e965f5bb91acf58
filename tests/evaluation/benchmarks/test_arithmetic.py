"""Arithmetic problems: deterministic, true, and with operands in the test that training never shows."""

import re

import pytest

from skills_pipe.evaluation.benchmarks.arithmetic import problems
from skills_pipe.evaluation.benchmarks.arithmetic.problems import (
    generate,
    solution,
    split_of,
    training_generations,
    wrong_solution,
)
from skills_pipe.evaluation.grading.math import extract_boxed


def pairs(rows):
    """Operand pairs; the order does not matter for sums."""
    return {(r["operation"], *(sorted((r["a"], r["b"])) if r["operation"] == "+" else (r["a"], r["b"]))) for r in rows}


def test_the_same_seed_gives_the_same_problems_and_another_seed_others():
    first = list(generate("test", 50, seed=3))
    assert first == list(generate("test", 50, seed=3))
    assert first != list(generate("test", 50, seed=4))
    assert first[:20] == list(generate("test", 20, seed=3))


def test_the_problems_do_not_change_between_versions():
    row = next(generate("test", 1))
    assert row == {
        "problem": "A bus carries 50 people and 65 more get on. How many people are on the bus?",
        "expected_answer": "115",
        "operation": "+",
        "a": 50,
        "b": 65,
    }


def test_no_pair_of_operands_is_in_both_splits():
    train, test = list(generate("train", 5000)), list(generate("test", 500))
    assert not pairs(train) & pairs(test)
    # Negative control: split by whole problems instead, as a careless benchmark would, and pairs do leak.
    mixed = list(generate("train", 5000))
    assert pairs(mixed[:4500]) & pairs(mixed[4500:])


def test_a_sum_belongs_to_the_same_split_in_either_order():
    assert all(split_of(a, "+", b) == split_of(b, "+", a) for a in range(2, 100) for b in range(2, 100))


def test_about_a_tenth_of_all_pairs_is_held_out():
    held = [split_of(a, op, b) == "test" for op in "+-" for a in range(2, 100) for b in range(2, a + 1)]
    assert 0.08 < sum(held) / len(held) < 0.13


@pytest.mark.parametrize("split", ["train", "test"])
def test_problems_are_different_true_and_within_range(split):
    rows = list(generate(split, 500))
    assert len({row["problem"] for row in rows}) == 500
    for row in rows:
        a, b, answer = row["a"], row["b"], int(row["expected_answer"])
        assert answer == (a + b if row["operation"] == "+" else a - b)
        assert answer >= 0
        assert max(a, b) <= 99
        assert re.search(rf"\b{a}\b", row["problem"])
        assert re.search(rf"\b{b}\b", row["problem"])


@pytest.mark.parametrize("templates", [problems._ADDITIONS, problems._SUBTRACTIONS])
def test_at_least_eight_templates_of_each_operation_are_in_use(templates):
    texts = [row["problem"] for row in generate("train", 2000)]
    patterns = [re.sub(r"\\\{\w+\\\}", r"\\w+", re.escape(template)) for template in templates]
    used = [pattern for pattern in patterns if any(re.fullmatch(pattern, text) for text in texts)]
    assert len(used) == len(templates) >= 8


def equations(text):
    return re.findall(r"([0-9 +-]+) = (\d+)", text)


def test_every_step_of_a_solution_is_true_and_the_box_holds_the_answer():
    for row in generate("train", 500):
        text = solution(row)
        assert extract_boxed(text) == row["expected_answer"]
        assert len(equations(text)) == 3
        for left, right in equations(text):
            terms = [int(term) for term in left.replace(" - ", " + -").split("+")]
            assert sum(terms) == int(right), text


def test_a_wrong_solution_is_always_wrong_and_still_boxed():
    for row in generate("train", 500):
        boxed = extract_boxed(wrong_solution(row))
        assert boxed is not None
        assert boxed != row["expected_answer"]
        assert int(boxed) >= 0


def test_training_generations_say_truly_which_are_right():
    rows = list(training_generations(400, seed=1, wrong_share=0.25))
    for row in rows:
        assert row["predicted_answer"] == extract_boxed(row["generation"])
        assert row["symbolic_correct"] == (row["predicted_answer"] == row["expected_answer"])
    assert 60 < sum(not row["symbolic_correct"] for row in rows) < 140
