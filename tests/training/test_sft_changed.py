"""A training that goes on under other keys or data than before: what is refused, what holds from there on."""

from __future__ import annotations

import json

import pytest

from skills_pipe.training.checkpoint.comparable import comparable_metrics
from skills_pipe.training.checkpoint.layout import whole_steps
from skills_pipe.training.sft import main
from tests.training.outputs import logged, saved_steps, verdict
from tests.training.sft_arguments import BATCH, arguments
from tests.training.tiny import chat_rows, write_jsonl

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def test_another_batch_size_cannot_go_on_from_a_checkpoint(tiny_model_folder, chat_data, tmp_path, capsys):
    settings = arguments(tiny_model_folder, chat_data, tmp_path)
    assert main([*settings, "checkpointing.stop_after_steps=2"]) == 75
    assert main([*settings, "policy.train_global_batch_size=4"]) == 2
    assert "step_2 was trained with global batches of 8" in capsys.readouterr().err


def test_other_data_are_refused_until_the_user_says_to_go_on(tiny_model_folder, chat_data, tmp_path, capsys):
    assert main([*arguments(tiny_model_folder, chat_data, tmp_path), "checkpointing.stop_after_steps=2"]) == 75
    others = arguments(tiny_model_folder, write_jsonl(tmp_path / "other.jsonl", chat_rows(64, seed=7)), tmp_path)

    assert main(others) == 2
    assert "the training data changed since step_2" in capsys.readouterr().err
    assert main([*others, "checkpointing.on_change=continue"]) == 0
    assert (verdict(tmp_path).step, saved_steps(tmp_path)) == (10, [5, 10])


def test_a_run_that_went_on_with_other_data_is_resumed_like_any_other(tiny_model_folder, chat_data, tmp_path):
    assert main([*arguments(tiny_model_folder, chat_data, tmp_path), "checkpointing.stop_after_steps=2"]) == 75
    others = arguments(tiny_model_folder, write_jsonl(tmp_path / "other.jsonl", chat_rows(64, seed=7)), tmp_path)
    accepted = [*others, "checkpointing.on_change=continue"]
    assert main([*accepted, "checkpointing.stop_after_steps=2"]) == 75

    assert main(accepted) == 0
    info = json.loads((tmp_path / "checkpoints" / "step_10" / "training_info.json").read_text())
    assert (info["total_steps"], info["consumed_samples"]) == (10, 8 * BATCH)


def test_losses_on_other_validation_data_do_not_count_for_the_best(tiny_model_folder, chat_data, tmp_path, capsys):
    periods = ["sft.val_period=2", "checkpointing.save_period=2", "checkpointing.keep_top_k=null"]
    settings = arguments(tiny_model_folder, chat_data, tmp_path, *periods)
    first, second = (write_jsonl(tmp_path / f"{seed}.jsonl", chat_rows(4, seed=seed)) for seed in (8, 9))
    assert main([*settings, f"data.val_data_path={first}", "checkpointing.stop_after_steps=4"]) == 75
    assert main([*settings, f"data.val_data_path={second}"]) == 0

    assert "the validation data changed since step_4: losses on them before do not count" in capsys.readouterr().out
    manifests = {step: manifest for step, _, manifest in whole_steps(tmp_path / "checkpoints")}
    validated = {step for step, metrics in comparable_metrics(manifests).items() if "val:val_loss" in metrics}
    assert (set(manifests), validated) == ({2, 4, 6, 8, 10}, {6, 8, 10})
    assert all("val:val_loss" in manifest.facts["metrics"] for manifest in manifests.values())


def test_an_optimizer_may_find_its_rate_itself(tiny_model_folder, chat_data, tmp_path, capsys):
    chosen = "++policy.optimizer={name: transformers.Adafactor, kwargs: {lr: null}}"
    settings = arguments(tiny_model_folder, chat_data, tmp_path, chosen, "sft.max_num_steps=4")
    assert main([*settings, "checkpointing.stop_after_steps=2"]) == 75
    assert main(settings) == 0
    told = capsys.readouterr().out
    assert "learning rate: found by the optimizer itself" in told and "nan" not in told
    losses = logged(tmp_path, "train/loss")
    assert list(losses) == [1, 2, 3, 4] and losses[4] < losses[1]
    assert set(logged(tmp_path, "train/lr").values()) <= {None}


def test_a_changed_rate_holds_after_a_resume_and_is_said(tiny_model_folder, chat_data, tmp_path, capsys):
    settings = arguments(tiny_model_folder, chat_data, tmp_path)
    assert main([*settings, "checkpointing.stop_after_steps=4"]) == 75
    assert main([*settings, "policy.lr=5e-4"]) == 0
    assert set(logged(tmp_path, "train/lr").values()) == {1e-3, 5e-4}
    printed = capsys.readouterr().out
    assert "note: changed since step_4, and going on with it: policy.lr 0.001 -> 0.0005; " in printed
    assert "; policy.optimizer.kwargs.lr 0.001 -> 0.0005\n" in printed
