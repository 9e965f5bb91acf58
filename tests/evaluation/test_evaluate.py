"""The whole evaluation with a real small model: files, resume after kill -9, other settings, servers."""

import json
import signal
import subprocess
import sys
import time

import pytest

from skills_pipe.artifacts import manifest
from skills_pipe.artifacts.progress import Progress
from skills_pipe.evaluation.evaluate import main
from skills_pipe.evaluation.prepare_benchmarks import main as prepare
from tests.evaluation.clients.test_http import StandIn, completion
from tests.loopback import serving
from tests.training.tiny import save_tiny_model


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the data of arithmetic and a random model."""
    place = tmp_path_factory.mktemp("place")
    assert prepare(["arithmetic", f"--data_dir={place / 'data'}", "++arithmetic.test_count=60"]) == 0
    save_tiny_model(place / "model")
    return place


def arguments(place, output, *extra, server_type="hf", model=None):
    return [
        "--benchmark=arithmetic",
        f"--data_dir={place / 'data'}",
        f"--model={model or place / 'model'}",
        f"--output_dir={output}",
        f"--server_type={server_type}",
        "++inference.tokens_to_generate=16",
        *extra,
    ]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_times(found):
    return [{key: value for key, value in row.items() if "_time" not in key} for row in found]


def test_answers_metrics_and_manifest_are_written(place, tmp_path, capsys):
    assert main(arguments(place, tmp_path / "out")) == 0
    found = rows(tmp_path / "out" / "output.jsonl")
    data = rows(place / "data" / "arithmetic" / "test.jsonl")
    assert [row["problem"] for row in found] == [row["problem"] for row in data]
    assert {
        "generation",
        "predicted_answer",
        "symbolic_correct",
        "num_generated_tokens",
        "finish_reason",
        "generation_start_time",
        "generation_end_time",
    } <= found[0].keys()
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["arithmetic"]["pass@1"]["num_entries"] == 60
    sealed = manifest.read(tmp_path / "out")
    assert (sealed.kind, sealed.facts["metrics"]) == ("eval", metrics)
    assert manifest.damage(tmp_path / "out", sealed) == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "manifest.json",
        "metrics.json",
        "output.jsonl",
        "output.jsonl-settings.json",
    ]
    assert "pass@1          | 60 " in capsys.readouterr().out


def start(place, output, *extra):
    command = [sys.executable, "-m", "skills_pipe.evaluation.evaluate", *arguments(place, output, *extra)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_after_kill_nine_only_the_missing_answers_are_generated(place, tmp_path):
    sampled = ("--num_random_seeds=1", "++inference.batch_size=1", "++inference.temperature=1.0")
    main(arguments(place, tmp_path / "whole", *sampled))
    partial = tmp_path / "out" / "output-rs0.jsonl-async"
    process = start(place, tmp_path / "out", *sampled)
    while not (partial.exists() and partial.read_bytes().count(b"\n") >= 10):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = partial.read_bytes()
    assert not (tmp_path / "out" / "manifest.json").exists()
    # A kill in the middle of a write leaves half a line.
    torn = kept[: kept.rindex(b"\n") - 20]
    partial.write_bytes(torn)
    lines = torn.count(b"\n")
    before = [json.loads(line) for line in torn.splitlines()[:lines]]
    assert main(arguments(place, tmp_path / "out", *sampled)) == 0
    after = rows(tmp_path / "out" / "output-rs0.jsonl")
    kept_times = {row["generation_end_time"] for row in before}
    assert len(kept_times & {row["generation_end_time"] for row in after}) == lines
    assert without_times(after) == without_times(rows(tmp_path / "whole" / "output-rs0.jsonl"))


def test_a_finished_evaluation_loads_no_model(place, tmp_path, capsys):
    model = save_tiny_model(tmp_path / "model")
    manifest.seal(model, kind="hf_model")
    main(arguments(place, tmp_path / "out", model=model))
    before = (tmp_path / "out" / "output.jsonl").read_bytes()
    (model / "model.safetensors").unlink()
    assert main(arguments(place, tmp_path / "out", model=model)) == 0
    assert (tmp_path / "out" / "output.jsonl").read_bytes() == before
    # Negative control: where something is left to generate, the missing weights are noticed.
    assert main(arguments(place, tmp_path / "other", model=model)) == 2


def test_other_settings_are_noticed_and_start_anew(place, tmp_path, capsys):
    main(arguments(place, tmp_path / "out"))
    assert main(arguments(place, tmp_path / "out", "++max_samples=5")) == 0
    assert "starting anew: options.max_samples: -1 -> 5" in capsys.readouterr().out
    assert len(rows(tmp_path / "out" / "output.jsonl")) == 5


def test_another_model_at_the_same_path_is_noticed(place, tmp_path, capsys):
    model = save_tiny_model(tmp_path / "model", seed=1)
    main(arguments(place, tmp_path / "out", model=model))
    save_tiny_model(model, seed=2)
    assert main(arguments(place, tmp_path / "out", model=model)) == 0
    assert "starting anew: inputs.model:" in capsys.readouterr().out


def test_speed_settings_change_nothing(place, tmp_path, capsys):
    main(arguments(place, tmp_path / "out"))
    main(arguments(place, tmp_path / "out", "++inference.batch_size=7", "++eval_config.workers=1"))
    assert "anew" not in capsys.readouterr().out


def test_several_seeds_give_several_files_and_their_averages(place, tmp_path):
    assert main(arguments(place, tmp_path / "out", "--num_random_seeds=2", "++max_samples=6")) == 0
    first, second = (rows(tmp_path / "out" / f"output-rs{seed}.jsonl") for seed in (0, 1))
    assert [row["generation"] for row in first] != [row["generation"] for row in second]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert set(metrics["arithmetic"]) == {"pass@1", "pass@2", "pass@1[avg-of-2]", "majority@2"}


def test_greedy_and_sampled_runs_do_not_share_a_folder(place, tmp_path, capsys):
    main(arguments(place, tmp_path / "out", "++max_samples=2"))
    assert main(arguments(place, tmp_path / "out", "--num_random_seeds=1", "++max_samples=2")) == 2
    assert "output.jsonl of another evaluation is there" in capsys.readouterr().err


def test_progress_is_reported_for_the_launcher(place, tmp_path, monkeypatch):
    monkeypatch.setenv("SKILLS_PIPE_PROGRESS_FILE", str(tmp_path / "progress.json"))
    main(arguments(place, tmp_path / "out"))
    progress = Progress.read(tmp_path / "progress.json")
    assert (progress.done, progress.total, progress.unit) == (60, 60, "problems")


@pytest.fixture
def server():
    with serving(StandIn()) as server:
        yield server


def test_a_server_s_answers_are_graded(place, tmp_path, server):
    data = rows(place / "data" / "arithmetic" / "test.jsonl")
    for number, row in enumerate(data):
        answer = int(row["expected_answer"]) + (number % 3 == 0)
        question = (
            "Solve the following math problem. Make sure to put the answer (and only answer) inside \\boxed{}.\n\n"
            + row["problem"]
        )
        server.replies[question] = [(200, completion(f"so \\boxed{{{answer}}}"), {})]
    address = f"--server_address={server.address}"
    assert main(arguments(place, tmp_path / "out", address, server_type="vllm", model="m")) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["arithmetic"]["pass@1"]["symbolic_correct"] == pytest.approx(100 * 2 / 3)


def test_answers_that_need_algebra_are_graded_in_the_program_itself(place, tmp_path, server):
    """Grading starts processes; that must work where the program is started by ``python -m``."""
    folder = tmp_path / "data" / "arithmetic"
    folder.mkdir(parents=True)
    problems = [{"problem": f"p{n}", "expected_answer": "\\frac{1}{2}"} for n in range(3)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    (tmp_path / "prompt.yaml").write_text("user: '{problem}'")
    for number, answer in enumerate(("0.5", "\\frac{2}{4}", "0.51")):
        server.replies[f"p{number}"] = [(200, completion(f"\\boxed{{{answer}}}"), {})]
    process = start(
        place,
        tmp_path / "out",
        *(f"--server_address={server.address}", "--server_type=vllm", f"--data_dir={tmp_path / 'data'}"),
        f"++prompt_config={tmp_path / 'prompt.yaml'}",
    )
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert [row["symbolic_correct"] for row in rows(tmp_path / "out" / "output.jsonl")] == [True, True, False]


def test_too_many_failures_stop_it_and_the_next_run_asks_again(place, tmp_path, server, capsys):
    extra = (f"--server_address={server.address}", "++server.max_retries=0", "++server.max_concurrent_requests=1")
    data = rows(place / "data" / "arithmetic" / "test.jsonl")
    questions = [
        "Solve the following math problem. Make sure to put the answer (and only answer) inside \\boxed{}.\n\n"
        + row["problem"]
        for row in data
    ]
    server.replies = {question: [(500, "worn out", {})] for question in questions[10:20]}
    assert main(arguments(place, tmp_path / "out", *extra, server_type="vllm", model="m")) == 1
    assert "4 of 60 problems stayed without an answer" in capsys.readouterr().err
    assert not (tmp_path / "out" / "manifest.json").exists()
    server.bodies = []
    server.replies = {questions[15]: [(500, "worn out", {})]}
    assert main(arguments(place, tmp_path / "out", *extra, server_type="vllm", model="m")) == 0
    # The ten good answers were kept; only what failed or was never asked is asked.
    assert {body["messages"][0]["content"] for body in server.bodies} == set(questions[10:])
    failed = [row for row in rows(tmp_path / "out" / "output.jsonl") if "error" in row]
    assert [(row["problem"], row["error"], row["symbolic_correct"]) for row in failed] == [
        (data[15]["problem"], "http_500", False)
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--split=train2"], "ns prepare_data arithmetic"),
        (["++prompt_config=generic/mats"], "did you mean 'generic/math'"),
        (["++prompt_config=generic/default"], "test.jsonl:1, prompt generic/default"),
        (["--model=/nowhere/at/all"], "cannot load the model"),
    ],
)
def test_a_mistake_is_one_line(place, tmp_path, capsys, change, message):
    assert main([*arguments(place, tmp_path / "out"), *change]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("line", ["{torn", "[]", '{"problem": "p"}'])
def test_a_bad_line_of_data_is_named(place, tmp_path, capsys, line):
    folder = tmp_path / "data" / "arithmetic"
    folder.mkdir(parents=True)
    good = (place / "data" / "arithmetic" / "test.jsonl").read_text().splitlines()[0]
    (folder / "test.jsonl").write_text(f"{good}\n{line}\n")
    assert main([*arguments(place, tmp_path / "out"), f"--data_dir={tmp_path / 'data'}"]) == 2
    assert f"{folder}/test.jsonl:2" in capsys.readouterr().err
