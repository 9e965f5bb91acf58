"""Options of other trainers, and keys without their ``++``, are answered with what to write here."""

import pytest

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.commands.sft.command import COMMAND
from skills_pipe.pipeline.commands.sft.elsewhere import in_place_of
from skills_pipe.pipeline.commands.sft.keys import FLAGS
from skills_pipe.training.config.read import known_keys


@pytest.mark.parametrize(
    ("flag", "key"),
    [
        ("--learning_rate", "policy.lr"),
        ("--learning-rate", "policy.lr"),
        ("--lr", "policy.lr"),
        ("--seed", "sft.seed"),
        ("--max_num_steps", "sft.max_num_steps"),
        ("--policy.precision", "policy.precision"),
        ("--lora_r", "policy.dtensor_cfg.lora_cfg.dim"),
    ],
)
def test_a_key_is_told_with_its_section(flag, key):
    assert in_place_of(flag) == f"keys of the trainer start with ++: ++{key}=VALUE"
    assert key in known_keys()


def test_a_key_that_an_option_sets_is_told_by_that_option():
    assert in_place_of("--model_name_or_path") == "did you mean --hf_model?"
    assert FLAGS.keys() <= set(known_keys())


@pytest.mark.parametrize("flag", ["--enabled", "--num_gpu", "--nonsense"])
def test_what_is_no_key_or_one_of_many_is_not_guessed(flag):
    assert in_place_of(flag) is None


def test_a_mistyped_option_still_means_the_one_that_is_spelled_alike():
    with pytest.raises(OptionError) as caught:
        COMMAND.parse(["--num_gpu=2", "--learning_rate=1"], {})
    assert "no option --num_gpu: did you mean '--num_gpus'?" in str(caught.value)
    assert "no option --learning_rate: keys of the trainer start with ++: ++policy.lr=VALUE" in str(caught.value)
