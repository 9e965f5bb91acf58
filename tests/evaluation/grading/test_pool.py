"""Grading in processes: in order, from any thread, and no expression stops the rest."""

import os
import threading
import time

import pytest

from skills_pipe.evaluation.grading import pool as pool_module
from skills_pipe.evaluation.grading.math import Comparison, math_equal
from skills_pipe.evaluation.grading.pool import GradingPool, Pair, _compare

HALF = Pair(expected="\\frac{1}{2}", predicted="0.5")
WRONG = Pair(expected="\\frac{1}{2}", predicted="0.6")


def grade(pairs, comparison=None):
    with GradingPool(comparison or Comparison(), workers=2) as pool:
        return [verdict.equal for verdict in pool.grade(pairs)]


def test_verdicts_come_in_the_order_of_the_pairs():
    quick = Pair(expected="7", predicted="7")
    nothing = Pair(expected="7", predicted=None)
    pairs = [HALF, quick, WRONG, nothing] * 5
    assert grade(pairs) == [True, True, False, False] * 5


def test_plain_answers_need_no_process():
    with GradingPool(Comparison(), workers=2) as pool:
        verdicts = list(pool.grade(Pair(expected=str(n), predicted=str(n % 7)) for n in range(10)))
        assert [verdict.equal for verdict in verdicts] == [n < 7 for n in range(10)]
        assert not pool._idle


def test_it_works_from_a_thread_where_the_grader_itself_cannot():
    results = []
    errors = []

    def work():
        results.append(grade([HALF, WRONG]))
        try:
            math_equal(HALF.expected, HALF.predicted, Comparison())
        except ValueError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [[True, False]]
    # Negative control: called directly in a thread, the grader refuses, because its timeout is a signal.
    assert "signal" in errors[0]


def _hang(pair, comparison):
    """Stands in for a comparison that never returns to Python; for the other pairs it does what the real one does."""
    if pair.expected == "hang":
        while True:
            time.sleep(3600)
    if pair.expected == "die":
        os._exit(9)
    return _compare(pair, comparison)


def _serve_with_traps(connection, comparison):
    pool_module._compare = _hang
    pool_module._serve(connection, comparison)


@pytest.fixture
def traps(monkeypatch):
    monkeypatch.setattr(pool_module, "_GRACE", -9.9)
    monkeypatch.setattr(pool_module, "_START_UP", 30.0)
    monkeypatch.setattr(pool_module, "_serve", _serve_with_traps)


def test_a_process_that_dies_or_hangs_costs_its_own_pair_only(traps):
    pairs = [HALF, Pair(expected="die", predicted="x"), HALF, Pair(expected="hang", predicted="x"), HALF, WRONG]
    with GradingPool(Comparison(timeout=12), workers=1) as pool:
        verdicts = list(pool.grade(pairs))
    assert [verdict.equal for verdict in verdicts] == [True, False, True, False, True, False]
    assert verdicts[1].failure == "the comparing process died"
    assert verdicts[3].failure == "timeout"


def test_an_expression_that_no_machine_can_evaluate_is_unequal():
    tower = Pair(expected="\\frac{1}{3}", predicted="9^{9^{9^9}}")
    assert grade([tower, HALF], Comparison(timeout=1)) == [False, True]
