"""The summary over benchmarks: NeMo-Skills' tables and numbers, and a damaged folder does not hide the others."""

import json
import shutil
from pathlib import Path

import pytest

from skills_pipe.evaluation.summarize import main

GOLDEN = Path(__file__).parent / "golden" / "B"


@pytest.fixture
def results(tmp_path):
    shutil.copytree(GOLDEN / "s1_main" / "eval-results", tmp_path / "run" / "eval-results")
    return tmp_path / "run"


def test_sampled_runs_read_as_the_original_s(results, capsys):
    assert main([str(results)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-1] == (GOLDEN / "expected" / "s1.table.txt").read_text().splitlines()[:-1]
    assert lines[-1] == f"Metrics are saved to {results / 'eval-results' / 'metrics.json'}"


def test_a_group_is_averaged_as_in_the_original(tmp_path, capsys):
    shutil.copytree(GOLDEN / "s5_groups", tmp_path / "s5")
    assert main([str(tmp_path / "s5"), "--metric_type=math"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-1] == (GOLDEN / "expected" / "s5_groups.table.txt").read_text().splitlines()[:-1]
    written = json.loads((tmp_path / "s5" / "metrics.json").read_text())
    assert written == json.loads((GOLDEN / "expected" / "s5_groups.metrics.json").read_text())


def test_one_benchmark_folder_can_be_given_by_itself(results, capsys):
    folder = results / "eval-results" / "aime24"
    assert main([str(folder)]) == 0
    assert " aime24 " in capsys.readouterr().out
    assert list(json.loads((folder / "metrics.json").read_text())) == ["aime24"]


def test_a_damaged_benchmark_is_told_and_the_others_are_counted(results, capsys):
    broken = results / "eval-results" / "broken"
    shutil.copytree(results / "eval-results" / "aime24", broken)
    with open(broken / "output-rs3.jsonl", "a") as file:
        file.write("{torn")
    (results / "eval-results" / "empty").mkdir()
    assert main([str(results)]) == 1
    captured = capsys.readouterr()
    assert " aime24 " in captured.out
    assert f"{broken}/output-rs3.jsonl:51" in captured.err
    assert "error: empty: there is no output.jsonl" in captured.err
    assert list(json.loads((results / "eval-results" / "metrics.json").read_text())) == ["aime24"]


def test_greedy_and_sampled_answers_in_one_folder_are_refused(results, capsys):
    folder = results / "eval-results" / "aime24"
    shutil.copy(folder / "output-rs0.jsonl", folder / "output.jsonl")
    assert main([str(results)]) == 1
    assert "both output.jsonl and output-rs*.jsonl are there" in capsys.readouterr().err


def test_runs_of_different_length_are_refused(results, capsys):
    path = results / "eval-results" / "aime24" / "output-rs3.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert main([str(results)]) == 1
    assert "output-rs3.jsonl ends before row 50" in capsys.readouterr().err


def test_longer_answers_can_count_as_wrong(results):
    def correct(*options):
        main([str(results), *options])
        return json.loads((results / "eval-results" / "metrics.json").read_text())["aime24"]["pass@1"]

    free, tight, none = correct(), correct("--max_seq_len=300"), correct("--max_seq_len=0")
    assert free["symbolic_correct"] > tight["symbolic_correct"] > none["symbolic_correct"] == 0
    assert none["no_answer"] == 100


def test_only_the_first_samples_can_be_counted(results):
    main([str(results), "--max_samples=10"])
    metrics = json.loads((results / "eval-results" / "metrics.json").read_text())
    assert metrics["aime24"]["pass@1"]["num_entries"] == 10


def test_subsets_are_counted_beside_the_whole(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    rows = [
        {"predicted_answer": "1", "symbolic_correct": i < 3, "subset_for_metrics": "even" if i % 2 == 0 else "odd"}
        for i in range(6)
    ]
    (folder / "output.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    main([str(tmp_path)])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    shares = {name: values["pass@1"]["symbolic_correct"] for name, values in metrics.items()}
    assert shares == {"mine": 50.0, "mine-even": pytest.approx(200 / 3), "mine-odd": pytest.approx(100 / 3)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no such folder (nowhere): check the path"),
        (["{results}", "--benchmarks=aime25"], "no results of aime25"),
        (["{results}", "--metric_type=maths"], "there is no metric 'maths': did you mean 'math'?"),
        (["{results}", "--benchmark=x"], "unknown option --benchmark: did you mean '--benchmarks'?"),
    ],
)
def test_a_mistake_is_one_line(results, capsys, arguments, message):
    assert main([argument.format(results=results) for argument in arguments]) == 2
    assert message in capsys.readouterr().err
