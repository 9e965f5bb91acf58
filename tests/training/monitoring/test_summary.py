"""What is told of a training before its first step is what the training then does."""

from __future__ import annotations

import re

import pytest

from skills_pipe.training.sft import main
from tests.training.outputs import logged
from tests.training.sft_arguments import arguments

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

SCHEDULE = (
    "policy.scheduler=[{name: torch.optim.lr_scheduler.LinearLR, kwargs: {start_factor: 0.1, total_iters: 3}}, "
    "{name: torch.optim.lr_scheduler.CosineAnnealingLR, kwargs: {T_max: 3, eta_min: 1.0e-6}}, {milestones: [3]}]"
)
RATE_OF_ADAMW = 1e-4


@pytest.mark.parametrize("schedule", [SCHEDULE, "policy.scheduler=null"])
def test_the_learning_rate_that_is_told_is_the_one_that_is_logged(
    schedule, tiny_model_folder, chat_data, tmp_path, capsys
):
    muon = f"policy.optimizer={{name: torch.optim.Muon, kwargs: {{lr: 1e-3, adamw: {{lr: {RATE_OF_ADAMW}}}}}}}"
    words = arguments(tiny_model_folder, chat_data, tmp_path, "sft.max_num_steps=6", muon, schedule)
    assert main([word for word in words if word != "policy.lr=1e-3"]) == 0
    out = capsys.readouterr().out
    (told,) = re.findall(r"^model: learning rate: (.*)$", out, re.MULTILINE)
    (beside,) = re.findall(r"^model: learning rate of other weights: (.*)$", out, re.MULTILINE)

    rates = logged(tmp_path, "train/lr")
    shown = [f"step {step}: {rates[step]:.3g}" for step in (1, 2, 4, 5, 6)]
    assert told == (", ".join(shown) if schedule == SCHEDULE else f"{rates[1]:.3g}, constant")
    assert beside.split(",")[0].removeprefix("step 1: ") in ("1e-05", "0.0001"), "negative control: AdamW has its own"
    assert beside.split(",")[0] != told.split(",")[0]


def test_rates_that_are_the_same_are_told_once(tiny_model_folder, chat_data, tmp_path, capsys):
    muon = "policy.optimizer={name: torch.optim.Muon, kwargs: {lr: 1e-3}}"
    words = arguments(tiny_model_folder, chat_data, tmp_path, "sft.max_num_steps=1", muon)
    assert main([word for word in words if word != "policy.lr=1e-3"]) == 0
    out = capsys.readouterr().out
    assert "model: learning rate: 0.001, constant\n" in out and "learning rate of other" not in out


def test_what_watches_over_the_run_and_what_is_added_to_it_is_told(tiny_model_folder, chat_data, tmp_path, capsys):
    watched = [
        "sft.early_stopping={patience: 2}",
        "sft.val_period=1",
        f"data.val_data_path={chat_data}",
        "sft.loss_spikes={deviations: 5, window: 16}",
        "sft.ema_decay=0.9",
        "policy.neftune_noise_alpha=5",
    ]
    for words in (watched, []):
        folder = tmp_path / str(len(words))
        assert main(arguments(tiny_model_folder, chat_data, folder, "sft.max_num_steps=1", *words)) == 0
        out = capsys.readouterr().out
        rows = re.findall(r"^(?:steps: (?:early|steps passed|moving)|model: noise).*$", out, re.MULTILINE)
        assert rows == (WATCHED if words else [])


LEFT_OUT = "; an epoch leaves out 16 of 64 documents (25.0%), too few for a step"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], f"2 of 24 documents, 1.00 epochs{LEFT_OUT}"),
        (["data.length_order=sorted"], f"2 of 24 documents, 1.00 epochs{LEFT_OUT}, always the longest"),
        (["sft.max_num_steps=1"], "1 of 24 documents, 0.50 epochs"),
        (["policy.train_global_batch_size=32"], "2 of 32 documents, 1.00 epochs"),
    ],
)
def test_what_an_epoch_leaves_out_is_told(words, told, tiny_model_folder, chat_data, tmp_path, capsys):
    given = ["policy.train_global_batch_size=24", "sft.max_num_steps=2", *words]
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *given)) == 0
    assert f"\nsteps: {told}\n" in capsys.readouterr().out


def test_how_much_lower_a_loss_has_to_be_is_told(tiny_model_folder, chat_data, tmp_path, capsys):
    given = ["sft.early_stopping={patience: 1, min_delta: 0.05}", "sft.val_period=1", f"data.val_data_path={chat_data}"]
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, "sft.max_num_steps=1", *given)) == 0
    out = capsys.readouterr().out
    assert "steps: early stopping: after one validation without a lower val:val_loss, by more than 0.05\n" in out


WATCHED = [
    "model: noise on embeddings: NEFTune, alpha 5",
    "steps: early stopping: after 2 validations in a row without a lower val:val_loss",
    "steps: steps passed over: loss or gradient norm 5 standard deviations above those of 16 steps",
    "steps: moving average: of the weights, decay 0.9; exported with --ema",
]
