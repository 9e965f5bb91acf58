"""The watches in real trainings: what they change, and that a resumed run goes on with them."""

import json

import pytest
import torch

from skills_pipe.artifacts.metrics import read_metrics
from skills_pipe.pipeline.cli import main as launch
from skills_pipe.training.sft import main
from tests.training.sft_arguments import arguments
from tests.training.test_sft import assert_equal_bits, logged, saved_steps, state, verdict
from tests.training.tiny import chat_rows, write_jsonl

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

# Far below any real jump: about half of the steps count as one.
SPIKES = ["sft.loss_spikes={deviations: 0.01, window: 4}", "policy.neftune_noise_alpha=5"]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("held-out") / "chats.jsonl", chat_rows(4, seed=1))


@pytest.fixture(scope="module")
def guarded(tiny_model_folder, chat_data, tmp_path_factory):
    output = tmp_path_factory.mktemp("guarded")
    assert main(arguments(tiny_model_folder, chat_data, output, *SPIKES)) == 0
    return output


def test_steps_that_are_passed_over_are_counted_and_said(guarded, tiny_model_folder, chat_data, tmp_path, capsys):
    counts = logged(guarded, "train/passed_over_steps")
    assert counts[2] == 0 < counts[10] < 10

    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *SPIKES)) == 0
    assert capsys.readouterr().out.count(" changes nothing: the ") == counts[10]


def test_a_run_that_was_cut_passes_over_the_same_steps(guarded, tiny_model_folder, chat_data, tmp_path):
    given = arguments(tiny_model_folder, chat_data, tmp_path, *SPIKES)
    assert main([*given, "checkpointing.stop_after_steps=6"]) == 75
    assert main(given) == 0

    assert logged(tmp_path, "train/passed_over_steps") == logged(guarded, "train/passed_over_steps")
    assert_equal_bits(state(tmp_path, 10), state(guarded, 10))


def test_without_the_option_all_steps_count(guarded, tiny_model_folder, chat_data, tmp_path):
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, SPIKES[1])) == 0

    assert set(logged(tmp_path, "train/passed_over_steps").values()) == {0}
    with pytest.raises(AssertionError):
        assert_equal_bits(state(tmp_path, 10), state(guarded, 10))


def test_training_ends_when_validation_no_longer_gets_better(tiny_model_folder, chat_data, held_out, tmp_path):
    stopping = ["sft.val_period=1", "sft.early_stopping={patience: 2, min_delta: 100}"]
    given = arguments(tiny_model_folder, chat_data, tmp_path, *stopping, validation=held_out)
    assert main(given) == 0

    assert verdict(tmp_path).step == 3
    assert verdict(tmp_path).reason.startswith("val:val_loss has fallen by no more than 100 (min_delta) in 2 valid")
    assert saved_steps(tmp_path) == [3]
    info = json.loads((tmp_path / "checkpoints" / "step_3" / "training_info.json").read_text())
    assert info["watches"]["early_stopping"]["best_step"] == 1

    # Started again it has nothing left to do; with more patience it goes on.
    before = state(tmp_path, 3)
    assert main(given) == 0
    assert_equal_bits(state(tmp_path, 3), before)
    assert main([*given, "sft.early_stopping.patience=4"]) == 0
    assert verdict(tmp_path).step == 5


def test_a_training_that_ends_early_tells_how_its_best_checkpoint_becomes_a_model(
    tiny_model_folder, chat_data, held_out, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    stopping = ["sft.val_period=1", "checkpointing.save_period=1", "checkpointing.keep_top_k=3"]
    # Upwards: the loss rises from the first step on.
    stopping += ["++policy.optimizer.kwargs.maximize=true", "sft.early_stopping={patience: 2}"]
    assert main(arguments(tiny_model_folder, chat_data, tmp_path / "out", *stopping, validation=held_out)) == 0
    ended, hint = capsys.readouterr().out.splitlines()[-2:]
    assert ended.startswith("complete: val:val_loss has not fallen in 2 validations: ")
    told, _, command = hint.partition("; a model of it, with the same --cluster: ")
    assert told == "the best checkpoint by val:val_loss is step_1, not the last one"
    words = command.replace("FOLDER", "best").split()
    assert words[0] == "ns" and launch([*words[1:], "--dry_run"]) == 0, "the command that is told is one"


RISING = ["sft.val_period=1", "++policy.optimizer.kwargs.maximize=true"]
WATCHED = "sft.early_stopping={patience: 9}"


@pytest.mark.parametrize(
    "extra", [RISING, ["sft.val_period=1", WATCHED], [*RISING, WATCHED, "checkpointing.enabled=false"]]
)
def test_nothing_is_told_without_early_stopping_or_where_the_last_is_the_best(
    extra, tiny_model_folder, chat_data, held_out, tmp_path, capsys
):
    """The control."""
    settings = ["sft.max_num_steps=2", "checkpointing.save_period=1", *extra]
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *settings, validation=held_out)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "complete: all 2 steps are done"


NEMO_RL = {
    *(f"train/{name}" for name in ("loss", "grad_norm", "lr", "global_valid_seqs", "global_valid_toks")),
    *(f"train/{name}" for name in ("num_unmasked_tokens", "num_valid_samples")),
    *(f"timing/train/{name}" for name in ("total_step_time", "data_processing", "policy_training", "checkpointing")),
    "timing/train/valid_tokens_per_sec_per_gpu",
    "validation/val_loss",
    "timing/validation/total_validation_time",
}
"""Names under which NeMo-RL logs what is logged here too; it also logs how busy GPUs are, and of mixtures more."""


def test_metrics_have_the_names_that_dashboards_of_nemo_rl_look_for(tiny_model_folder, chat_data, held_out, tmp_path):
    short = ["sft.max_num_steps=2", "sft.val_period=2"]
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *short, validation=held_out)) == 0
    found = {name for line in read_metrics(tmp_path / "training-logs" / "metrics.jsonl") for name in line}
    assert found >= NEMO_RL


def test_metrics_say_how_fast_it_was(guarded):
    values = next(line for line in read_metrics(guarded / "training-logs" / "metrics.jsonl") if line["step"] == 2)
    names = ("samples_per_second", "tokens_per_second_per_gpu", "tflops_per_gpu", "data_wait")

    assert all(values[f"train/{name}"] > 0 for name in names)
    assert values["memory/process_peak_gib"] > 0.1
    assert values["train/tokens_per_second_per_gpu"] == pytest.approx(values["train/tokens_per_second"])
    assert ("train/mfu" in values) is (torch.cuda.is_available())
