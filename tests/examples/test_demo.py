"""The demo: what `make demo` runs behind the installation, with less than half of its training."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo" / "run.py"


def run_demo(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    # One thread: side by side with other tests, threads of one step would wait for each other.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(DEMO), f"--output_dir={folder}", *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_the_demo_teaches_a_random_model_arithmetic_that_it_has_not_seen(tmp_path):
    folder = tmp_path / "demo"
    ended = run_demo(folder, "--steps=400")
    assert ended.returncode == 0, ended.stderr

    figures = json.loads((folder / "result.json").read_text())
    assert figures["accuracy_before"] <= 5
    assert figures["accuracy_after"] >= 20
    assert figures["seconds"] > 0
    assert figures["train_tokens_per_second"] > 0
    assert f"{figures['accuracy_after']:.1f} %" in ended.stdout
    assert "demo-sft-sft-0: continued" in ended.stdout  # the second job resumed what the first one saved
    assert "demo-sft-sft-1: succeeded" in ended.stdout
    assert (folder / "training-logs" / "loss.png").read_bytes().startswith(b"\x89PNG")
    lineage = json.loads((folder / "final_hf_model" / "lineage.json").read_text())
    assert sorted(lineage["averaged_from"]) == ["hf_model_step_300", "hf_model_step_350", "hf_model_step_400"]


def test_a_folder_that_is_not_the_demos_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    ended = run_demo(tmp_path)
    assert ended.returncode != 0
    assert "was not made by the demo" in ended.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_steps_that_cannot_be_divided_are_refused_before_anything_is_done(tmp_path):
    folder = tmp_path / "demo"
    ended = run_demo(folder, "--steps=250")
    assert ended.returncode == 2
    assert "--steps=250: give a multiple of 100" in ended.stderr
    assert not folder.exists()
