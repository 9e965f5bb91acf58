"""A chain of jobs whose training ends before its last step: what has been learnt waits for no later job."""

import json

import pytest

from skills_pipe.artifacts.metrics import read_metrics
from skills_pipe.pipeline.cli import sft_nemo_rl, wrap_arguments
from tests.training.tiny import chat_rows, save_tiny_model, write_jsonl

KEYS = (
    "++sft.max_num_steps=20 ++sft.val_period=1 ++checkpointing.save_period=10 ++checkpointing.stop_after_steps=2 "
    "++policy.train_global_batch_size=4 ++policy.max_total_sequence_length=160 ++policy.precision=float32"
)
# Nothing is ever so much better: the second validation after the first one ends the training.
STOPPING = " ++sft.early_stopping='{patience: 2, min_delta: 100}'"


def run_chain(keys):
    run = sft_nemo_rl(
        ctx=wrap_arguments(keys),
        expname="training",
        output_dir="out",
        hf_model="./base",
        training_data="train.jsonl",
        validation_data="validation.jsonl",
        num_training_jobs=3,
    )
    return dict(run.actions)


@pytest.mark.slow
def test_later_jobs_have_nothing_to_do(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "records"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("NEMO_SKILLS_CONFIG", raising=False)
    save_tiny_model(tmp_path / "base")
    write_jsonl(tmp_path / "train.jsonl", chat_rows(32))
    write_jsonl(tmp_path / "validation.jsonl", chat_rows(4, seed=1))

    assert set(run_chain(KEYS + STOPPING).values()) == {"run"}
    told = capfd.readouterr().out
    assert "training-sft-0: continued" in told
    assert "training-sft-1: succeeded" in told
    assert "training-sft-2: succeeded" not in told
    lines = read_metrics(tmp_path / "out" / "training-logs" / "metrics.jsonl")
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 3]
    assert json.loads((tmp_path / "out" / "checkpoints" / "manifest.json").read_text())["facts"]["steps"] == 3
    assert list((tmp_path / "out" / "final_hf_model").glob("*.safetensors"))

    assert set(run_chain(KEYS + STOPPING).values()) == {"skip"}
