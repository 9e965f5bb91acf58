"""From graded answers to numbers: pass@k, majority@k, averages over runs and how much they scatter.

``pass@k`` is the unbiased estimate 1 - C(n-c, k) / C(n, k) of Chen et al. 2021 (arXiv:2107.03374) with c right ones
of n samples. The modes, the names and the order of the metrics are those of NeMo-Skills.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from skills_pipe.errors import DataError

Sample = Mapping[str, Any]
"""One graded answer: a line of ``output.jsonl``."""

Metrics = dict[str, dict[str, Any]]
"""Evaluation mode (``pass@1``, ``majority@8``, ...) -> metric -> value; shares are percentages."""

CORRECTNESS = ("symbolic_correct", "judge_correct")
"""Fields that tell whether an answer is right, any subset of which may be present."""


class MathMetrics:
    """Counts answers that are right or wrong and have a short final answer that can be voted on."""

    def __init__(self) -> None:
        self._problems = 0
        self._runs = 0
        self._tokens = 0.0
        self._started = math.inf
        self._ended = -math.inf
        self._sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._scores: dict[str, list[list[float]]] = defaultdict(list)

    def add(self, samples: Sequence[Sample]) -> None:
        """Take in the answers of all runs to one problem.

        Raises:
            DataError: another problem had another number of answers, or an answer is not graded.
        """
        if self._problems and len(samples) != self._runs:
            raise DataError(f"problem {self._problems + 1} has {len(samples)} answers, {self._runs} expected")
        self._runs = len(samples)
        self._problems += 1
        self._add_lengths(samples)
        answers = [sample.get("predicted_answer") for sample in samples]
        for name, scores in _correctness(samples).items():
            self._scores[name].append(scores)
            for k in range(1, len(samples) + 1):
                self._sums[f"pass@{k}"][name] += _pass_at(k, scores)
                self._sums[f"pass@1[avg-of-{k}]"][name] += sum(scores[:k]) / k
                if k > 1:
                    self._sums[f"majority@{k}"][name] += _majority(answers[:k], scores[:k])
        missing = [answer is None for answer in answers]
        for k in range(1, len(samples) + 1):
            self._sums[f"pass@{k}"]["no_answer"] += all(missing[:k])
            self._sums[f"pass@1[avg-of-{k}]"]["no_answer"] += sum(missing[:k]) / k
            if k > 1:
                self._sums[f"majority@{k}"]["no_answer"] += all(missing[:k])

    def result(self) -> Metrics:
        """All modes with their metrics; empty without problems."""
        common = self._common()
        metrics: Metrics = {}
        for mode, sums in self._sums.items():
            # The average of one run is pass@1 itself.
            if mode != "pass@1[avg-of-1]":
                metrics[mode] = common | {name: 100.0 * value / self._problems for name, value in sums.items()}
        for name, scores in self._scores.items():
            for k in range(2, self._runs + 1):
                metrics[f"pass@1[avg-of-{k}]"][f"{name}_statistics"] = _scatter([row[:k] for row in scores])
        return metrics

    def _add_lengths(self, samples: Sequence[Sample]) -> None:
        counts = [sample.get("num_generated_tokens", 0) for sample in samples]
        reasoning = [sample.get("num_reasoning_tokens", 0) for sample in samples]
        answer = [sample.get("num_answer_tokens", 0) for sample in samples]
        # Without a breakdown, all that was generated is the answer.
        answer = [a if a or r else n for a, r, n in zip(answer, reasoning, counts, strict=True)]
        self._tokens += sum(counts) / len(samples)
        self._scores["reasoning_tokens"].append(reasoning)
        self._scores["answer_tokens"].append(answer)
        for sample in samples:
            self._started = min(self._started, sample.get("generation_start_time", math.inf))
            self._ended = max(self._ended, sample.get("generation_end_time", -math.inf))

    def _common(self) -> dict[str, Any]:
        common: dict[str, Any] = {"num_entries": self._problems}
        if self._tokens:
            common["avg_tokens"] = int(self._tokens / self._problems)
        if math.isfinite(self._started) and math.isfinite(self._ended):
            common["gen_seconds"] = int(self._ended - self._started)
        return common


METRICS = {"math": MathMetrics}
"""Ways to count, by the name that a benchmark gives."""


def _correctness(samples: Sequence[Sample]) -> dict[str, list[float]]:
    scores = {name: [s[name] for s in samples] for name in CORRECTNESS if all(name in s for s in samples)}
    if not scores:
        raise DataError(f"an answer is not graded: none of {', '.join(CORRECTNESS)} is in all rows of a problem")
    return scores


def _pass_at(k: int, scores: Sequence[float]) -> float:
    wrong = len(scores) - int(sum(scores))
    return 1.0 - math.comb(wrong, k) / math.comb(len(scores), k)


def _majority(answers: Sequence[Any], scores: Sequence[float]) -> float:
    """Score of the most frequent answer; tied answers share it."""
    votes = Counter((answer, score) for answer, score in zip(answers, scores, strict=True) if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = [score for (_, score), count in votes.items() if count == most]
    return sum(winners) / len(winners)


def _scatter(scores: Sequence[Sequence[float]]) -> dict[str, float]:
    """Spread over runs and within problems of ``scores[problem][run]``; sample standard deviations (n - 1)."""
    runs = [statistics.fmean(run) for run in zip(*scores, strict=True)]
    deviation = statistics.stdev(runs)
    return {
        "avg": statistics.fmean(runs),
        "std_dev_across_runs": deviation,
        "avg_sample_std_dev": statistics.fmean(_stdev(row) for row in scores),
        "std_err_across_runs": deviation / math.sqrt(len(runs)),
    }


def _stdev(values: Sequence[float]) -> float:
    """Sample standard deviation; exactly 0 for equal values, by far the most frequent case."""
    return statistics.stdev(values) if any(a != b for a, b in pairwise(values)) else 0.0
