"""What must hold for early stopping, loss spikes, averages and profiles."""

import pytest

from skills_pipe.errors import UserError
from skills_pipe.training.config import load_config

BASE = ["policy.model_name=x", "data.train_data_path=x.jsonl", "sft.max_num_steps=9"]
VALIDATED = ["data.val_data_path=v.jsonl", "sft.val_period=3"]


def loaded(*overrides):
    return load_config(None, [*BASE, *overrides])


def test_what_is_left_out_has_its_usual_value():
    sft = loaded(*VALIDATED, "sft.early_stopping={patience: 2}", "sft.loss_spikes={}").sft

    assert (sft.early_stopping.metric, sft.early_stopping.min_delta) == ("val:val_loss", 0.0)
    assert (sft.loss_spikes.deviations, sft.loss_spikes.window) == (6.0, 128)
    assert loaded().sft.early_stopping is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sft.early_stopping={patience: 2}", "sft.val_period=3"], "needs validation data"),
        (["sft.early_stopping={patience: 2}", "data.val_data_path=v.jsonl"], "needs validations, and sft.val_period"),
        ([*VALIDATED, "sft.early_stopping={}"], "sft.early_stopping.patience is missing"),
        ([*VALIDATED, "sft.early_stopping={patience: 0}"], "patience must be at least 1"),
        ([*VALIDATED, "sft.early_stopping={patience: 2, metric: train:loss}"], "'train:loss' is no metric of valid"),
        ([*VALIDATED, "sft.early_stopping={patience: 2, metric: val:accuracy}"], "'val:accuracy' is no metric of"),
        ([*VALIDATED, "sft.early_stopping={patience: 2, metric: val:a/val_loss}"], "the loss of no validation dataset"),
        (["sft.loss_spikes={deviations: 0}"], "deviations must be more than 0"),
        (["sft.loss_spikes={windou: 9}"], "unknown key sft.loss_spikes.windou"),
        (["sft.ema_decay=1.0"], "sft.ema_decay is 1, and must be less than 1"),
        (["policy.neftune_noise_alpha=0"], "must be more than 0"),
        (["logger.profile_step_range='0:3'"], "'0:3' is no range of steps"),
        (["logger.profile_step_range=185"], "'185' is no range of steps"),
        (["logger.profiler=perf"], "must be torch or nsys"),
    ],
)
def test_a_mistake_is_named(overrides, message):
    with pytest.raises(UserError) as caught:
        loaded(*overrides)
    assert message in str(caught.value)
