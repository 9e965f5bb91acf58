"""Counting equals NeMo-Skills' numbers, and closed forms where there are any."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import DataError
from skills_pipe.evaluation.metrics.compute import MathMetrics
from skills_pipe.evaluation.metrics.folders import folder_metrics

GOLDEN = Path(__file__).parent.parent / "golden" / "B"


def differences(left, right, path=""):
    """Paths at which two JSON values differ by key, type, or more than 1e-9."""
    if isinstance(left, dict) and isinstance(right, dict):
        found = [f"{path}/{key}" for key in left.keys() ^ right.keys()]
        for key in left.keys() & right.keys():
            found += differences(left[key], right[key], f"{path}/{key}")
        return found
    if type(left) is not type(right):
        return [path]
    return [] if left == right or math.isclose(left, right, abs_tol=1e-9) else [path]


def test_eight_runs_give_the_original_s_numbers():
    expected = json.loads((GOLDEN / "expected" / "s1.metrics.json").read_text())
    found = folder_metrics("aime24", GOLDEN / "s1_main" / "eval-results" / "aime24", "math")
    assert differences(found, expected) == []


def test_the_comparison_sees_a_small_difference():
    """Negative control of the comparison above."""
    expected = json.loads((GOLDEN / "expected" / "s1.metrics.json").read_text())
    changed = json.loads(json.dumps(expected))
    changed["aime24"]["majority@8"]["symbolic_correct"] += 1e-6
    del changed["aime24"]["pass@3"]["no_answer"]
    assert set(differences(changed, expected)) == {"/aime24/majority@8/symbolic_correct", "/aime24/pass@3/no_answer"}


def sample(answer, correct):
    return {"predicted_answer": answer, "symbolic_correct": correct}


def count(*problems):
    metrics = MathMetrics()
    for problem in problems:
        metrics.add(problem)
    return metrics.result()


def test_one_greedy_run_has_one_mode():
    result = count([sample("1", True)], [sample(None, False)], [sample("2", False)], [sample("3", True)])
    assert result == {"pass@1": {"num_entries": 4, "symbolic_correct": 50.0, "no_answer": 25.0}}


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=8))
def test_pass_at_k_is_the_chance_that_k_drawn_samples_hold_a_right_one(table):
    result = count(*[[sample(str(i), right) for i, right in enumerate(row)] for row in table])
    chances = {k: [] for k in (1, 2, 3)}
    for row in table:
        for k in chances:
            draws = [[row[i] for i in range(3) if mask >> i & 1] for mask in range(8) if bin(mask).count("1") == k]
            chances[k].append(sum(any(draw) for draw in draws) / len(draws))
    for k, values in chances.items():
        assert result[f"pass@{k}"]["symbolic_correct"] == pytest.approx(100 * sum(values) / len(values))


def test_tied_answers_share_the_majority():
    tied = [sample("1", True), sample("2", False), sample(None, False), sample("2", False), sample("1", True)]
    result = count(tied)
    assert result["majority@5"]["symbolic_correct"] == 50.0
    assert result["majority@2"]["symbolic_correct"] == 50.0
    assert result["majority@4"]["symbolic_correct"] == 0.0
    assert count([sample(None, False), sample(None, False)])["majority@2"] == {
        "num_entries": 1,
        "symbolic_correct": 0.0,
        "no_answer": 100.0,
    }


def test_problems_with_different_numbers_of_answers_are_refused():
    with pytest.raises(DataError, match="problem 2 has 1 answers, 2 expected"):
        count([sample("1", True)] * 2, [sample("1", True)])


def test_an_ungraded_answer_is_refused():
    with pytest.raises(DataError, match="not graded"):
        count([{"predicted_answer": "1"}])
