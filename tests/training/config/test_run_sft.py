"""The example script trains, from the repository's root and with the documented arguments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run_sft(*arguments):
    return subprocess.run(
        [sys.executable, "examples/run_sft.py", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_example_trains_as_documented(tiny_model_folder, tmp_path):
    done = run_sft(
        "--config",
        "examples/configs/sft.yaml",
        "cluster.gpus_per_node=1",
        "logger.wandb.name=sft-dev-1-gpu",
        f"policy.model_name={tiny_model_folder}",
        f"checkpointing.checkpoint_dir={tmp_path}/checkpoints",
        f"logger.log_dir={tmp_path}/logs",
        "sft.max_num_steps=12",
        "policy.optimizer.kwargs.lr=1e-3",
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "logs" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(losses) == 12
    assert losses[-1] < losses[0]
    validated = [line["step"] for line in lines if "validation/val_loss" in line]
    assert validated == [0, 10, 12]
    assert (tmp_path / "checkpoints" / "step_12" / "config.yaml").is_file()


@pytest.mark.slow
def test_every_mistake_is_named_and_nothing_is_trained(tmp_path):
    done = run_sft("sft.max_num_step=1", "policy.precision=int4", f"checkpointing.checkpoint_dir={tmp_path}/out")
    assert done.returncode == 2
    assert "did you mean 'sft.max_num_steps'?" in done.stderr
    assert "policy.precision must be bfloat16, float16 or float32" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
