"""The layout of the tutorial: model, training and data."""

from __future__ import annotations

import pytest

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import load_config

TUTORIAL = """
model:
  name: "microsoft/DialoGPT-medium"
  max_length: 512

training:
  batch_size: 4
  learning_rate: 2e-5
  num_epochs: 3
  warmup_steps: 100

data:
  train_file: "path/to/train.json"
  validation_file: "path/to/val.json"
  max_seq_length: 512
"""
NEEDED = {"model": {"name": "base"}, "data": {"train_file": "train.json"}}


def with_training(**training):
    return load_config(NEEDED | {"training": training})


def test_the_tutorials_file_is_read_as_it_stands(tmp_path):
    path = tmp_path / "sft_config.yaml"
    path.write_text(TUTORIAL)
    config = load_config(path)
    assert config.policy.model_name == "microsoft/DialoGPT-medium"
    assert config.policy.max_total_sequence_length == 512
    assert config.policy.train_global_batch_size == 4
    assert config.policy.optimizer.kwargs["lr"] == 2e-5
    assert config.sft.max_num_epochs == 3
    assert (config.data.add_bos, config.data.add_eos) == (True, True)
    (train,), (validation,) = config.data.train, config.data.validation
    assert (train.dataset_name, train.data_path) == ("alpaca", "path/to/train.json")
    assert (validation.dataset_name, validation.data_path) == ("alpaca", "path/to/val.json")


def test_the_rate_rises_over_the_warmup_and_stays():
    import torch

    from skills_pipe.training.optimizers.build import build_optimizer, build_scheduler

    policy = with_training(warmup_steps=4, learning_rate=1.0).policy
    optimizer = build_optimizer([torch.nn.Parameter(torch.zeros(1))], policy.optimizer)
    scheduler = build_scheduler(optimizer, policy.scheduler)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


@pytest.mark.parametrize("steps", [0, 1])
def test_a_warmup_of_one_step_is_none(steps):
    assert with_training(warmup_steps=steps).policy.scheduler is None


def test_a_warmup_that_is_no_number_is_an_error():
    with pytest.raises(ConfigError, match=r"'long' is no number of steps \(training.warmup_steps\)"):
        with_training(warmup_steps="long")


def test_a_length_of_the_data_wins_over_that_of_the_model_and_is_told():
    given = {"model": {"name": "base", "max_length": 1024}, "data": {"train_file": "a.json", "max_seq_length": 256}}
    with pytest.warns(UserWarning, match="data.max_seq_length=256 and model.max_length=1024 differ"):
        assert load_config(given).policy.max_total_sequence_length == 256


def test_canonical_sections_stand_beside_and_win():
    config = load_config(NEEDED | {"training": {"batch_size": 4}, "policy": {"train_global_batch_size": 8}})
    assert config.policy.train_global_batch_size == 8


def test_an_unknown_key_is_refused_with_advice():
    with pytest.raises(ConfigError, match=r"training\.epochs"):
        with_training(epochs=3)


def test_a_wrong_value_of_a_given_configuration_says_where_it_stands():
    given = {"policy": {"model_name": "base", "lr": "fast"}, "data": {"train_data_path": "a.jsonl"}}
    with pytest.raises(ConfigError, match=r"policy\.lr in the given configuration"):
        load_config(given)


def test_a_list_in_place_of_a_section_is_an_error():
    with pytest.raises(ConfigError, match="sft is a list, not a section of keys"):
        load_config(NEEDED | {"sft": []})
