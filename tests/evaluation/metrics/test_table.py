"""The table reads as NeMo-Skills prints it."""

from pathlib import Path

from skills_pipe.evaluation.metrics.folders import folder_metrics
from skills_pipe.evaluation.metrics.table import format_table

GOLDEN = Path(__file__).parent.parent / "golden" / "B"


def test_the_block_of_a_benchmark_equals_the_original_s():
    metrics = folder_metrics("aime24", GOLDEN / "s1_main" / "eval-results" / "aime24", "math")
    expected = (GOLDEN / "expected" / "s1.table.txt").read_text().splitlines()[:5]
    assert [line.rstrip() for line in format_table("aime24", metrics["aime24"]).splitlines()] == [
        line.rstrip() for line in expected if line
    ]


def test_a_greedy_run_shows_one_line():
    metrics = {"pass@1": {"num_entries": 500, "symbolic_correct": 81.956, "no_answer": 0.0}}
    assert format_table("b", metrics).splitlines() == [
        " b ".center(60, "-"),
        "evaluation_mode | num_entries | symbolic_correct | no_answer",
        "pass@1          | 500         | 81.96%           | 0.00%    ",
    ]
