"""Options of other trainers, and keys without their ``++``, are answered with what to write here."""

import pytest

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.commands.sft.command import COMMAND
from skills_pipe.pipeline.commands.sft.elsewhere import in_place_of
from skills_pipe.pipeline.commands.sft.keys import FLAGS
from skills_pipe.training.config.read import known_keys, names_elsewhere


@pytest.mark.parametrize(
    ("flag", "key"),
    [
        ("--lr", "policy.lr"),
        ("--seed", "sft.seed"),
        ("--max_num_steps", "sft.max_num_steps"),
        ("--policy.precision", "policy.precision"),
    ],
)
def test_a_key_is_told_with_its_section(flag, key):
    assert in_place_of(flag) == f"keys of the trainer start with ++: ++{key}=VALUE"
    assert key in known_keys()


@pytest.mark.parametrize(
    ("flag", "key"),
    [
        ("--learning_rate", "policy.lr"),
        ("--learning-rate", "policy.lr"),
        ("--lora_r", "policy.dtensor_cfg.lora_cfg.dim"),
        ("--bf16", "policy.precision"),
        ("--gradient_accumulation_steps", "policy.train_global_batch_size"),
    ],
)
def test_what_is_called_otherwise_may_take_other_values(flag, key):
    assert in_place_of(flag) == f"the trainer's key for it is ++{key}"


@pytest.mark.parametrize(("flag", "key"), [("--peft", "policy.dtensor_cfg.lora_cfg"), ("--policy", "policy")])
def test_a_section_has_no_value(flag, key):
    assert in_place_of(flag) == f"that is a section of the trainer's keys, ++{key}"


def test_no_advice_is_refused_when_it_is_followed():
    names = {key.rpartition(".")[2] for key in known_keys()} | {name for _, them in names_elsewhere() for name in them}
    advised = {advice for name in names if (advice := in_place_of(f"--{name}"))}
    assert len(advised) > 50
    assert not [advice for advice in advised for key in FLAGS if f"++{key}=" in advice or advice.endswith(f"++{key}")]
    options = {flag for option in COMMAND.all_options for flag in option.on}
    assert {word.rstrip("?") for advice in advised for word in advice.split() if word.startswith("--")} <= options


def test_a_key_that_an_option_sets_is_told_by_that_option():
    assert in_place_of("--model_name_or_path") == "did you mean --hf_model?"
    assert in_place_of("--checkpoint_dir") == "did you mean --output_dir?"
    assert FLAGS.keys() <= set(known_keys())


@pytest.mark.parametrize("flag", ["--enabled", "--num_gpu", "--nonsense"])
def test_what_is_no_key_or_one_of_many_is_not_guessed(flag):
    assert in_place_of(flag) is None


def test_a_mistyped_option_still_means_the_one_that_is_spelled_alike():
    with pytest.raises(OptionError) as caught:
        COMMAND.parse(["--num_gpu=2", "--output-dir=out", "--learning_rate=1"], {})
    assert "no option --num_gpu: did you mean '--num_gpus'?" in str(caught.value)
    assert "no option --output-dir: did you mean '--output_dir'?" in str(caught.value)
    assert "no option --learning_rate: the trainer's key for it is ++policy.lr" in str(caught.value)
