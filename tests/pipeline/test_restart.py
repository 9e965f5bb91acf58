"""A training that is begun anew: nothing of the old one is lost."""

import json

import pytest

from skills_pipe.artifacts.metrics import read_metrics
from skills_pipe.pipeline.cli import sft_nemo_rl, wrap_arguments
from tests.training.tiny import chat_rows, save_tiny_model, write_jsonl


def trained(steps, **options):
    keys = f"++sft.max_num_steps={steps} ++policy.train_global_batch_size=4 ++policy.max_total_sequence_length=160"
    keys += " ++sft.val_period=2 ++sft.val_answers.num_samples=1 ++sft.val_answers.max_new_tokens=2"
    keys += " ++logger.wandb.mode=offline ++logger.swanlab_enabled=true ++logger.swanlab.mode=offline"
    sft_nemo_rl(
        ctx=wrap_arguments(f"{keys} ++policy.precision=float32"),
        expname="training",
        output_dir="out",
        hf_model="./base",
        training_data="train.jsonl",
        validation_data="val.jsonl",
        wandb_project="project",
        **options,
    )


@pytest.mark.slow
def test_checkpoints_model_metrics_and_what_is_drawn_of_them_are_set_aside(tmp_path, monkeypatch, capfd):
    pytest.importorskip("wandb")
    pytest.importorskip("swanlab")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "records"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("NEMO_SKILLS_CONFIG", raising=False)
    save_tiny_model(tmp_path / "base")
    write_jsonl(tmp_path / "train.jsonl", chat_rows(16))
    write_jsonl(tmp_path / "val.jsonl", chat_rows(2))
    logs = tmp_path / "out" / "training-logs"

    trained(2)
    before = (logs / "metrics.jsonl").read_text()
    picture = (logs / "loss.png").read_bytes()
    events = {path.name for path in (logs / "tensorboard").iterdir()}
    runs = json.loads((logs / "tracked_runs.json").read_text())
    answers = {path.name: path.read_text() for path in (logs / "validation-answers").iterdir()}
    trained(3, on_change="restart")
    assert (logs / "old_metrics.jsonl.1").read_text() == before
    assert (logs / "old_loss.png.1").read_bytes() == picture != (logs / "loss.png").read_bytes()
    assert events and {path.name for path in (logs / "old_tensorboard.1").iterdir()} == events
    assert not events & {path.name for path in (logs / "tensorboard").iterdir()}
    assert "step_2.jsonl" in answers
    assert {path.name: path.read_text() for path in (logs / "old_validation-answers.1").iterdir()} == answers
    # One service makes ids of its own, to the other the launcher gives that of the experiment.
    assert json.loads((logs / "old_tracked_runs.json.1").read_text()) == runs
    now = json.loads((logs / "tracked_runs.json").read_text())
    assert now["swanlab"] != runs["swanlab"] and now["wandb"] == runs["wandb"] == "training-project"
    assert [line["step"] for line in read_metrics(logs / "metrics.jsonl") if "train/loss" in line] == [1, 2, 3]
    assert (tmp_path / "out" / "old_checkpoints.1" / "step_2").is_dir()
    assert (tmp_path / "out" / "old_final_hf_model.1").is_dir()
    # The control: what goes on writes to the same file.
    trained(4, on_change="continue")
    assert [line["step"] for line in read_metrics(logs / "metrics.jsonl") if "train/loss" in line] == [1, 2, 3, 4]
    assert len(list(logs.glob("old_metrics*"))) == 1
