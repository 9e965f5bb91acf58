"""Options as the command line that gives them, whether they were typed or given in Python."""

from __future__ import annotations

import pytest

from skills_pipe.pipeline.console.argv import divide
from skills_pipe.pipeline.console.registry import entry
from skills_pipe.pipeline.options.declaration import build
from skills_pipe.pipeline.options.spelling import command_line, hidden

COMMANDS = ["nemo_rl sft", "eval", "run_cmd", "convert", "prepare_data", "status", "logs", "cancel", "resume", "show"]


def options(command: str, **values):
    return build(entry(command).load().options, values)


SFT = {"output_dir": "/out", "hf_model": "org/model"}


def test_defaults_are_left_out_and_the_rest_is_in_the_order_of_the_help():
    given = options("nemo_rl sft", **SFT, num_gpus=8, expname="mine", cluster="slurm")
    assert command_line("nemo_rl sft", given, ("++sft.seed=1",)) == (
        *("nemo_rl", "sft", "--output_dir=/out", "--hf_model=org/model", "--num_gpus=8", "--expname=mine"),
        *("--cluster=slurm", "++sft.seed=1"),
    )


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"average_steps": "10,20"}, "--average_steps=20"),
        ({"mount_paths": ["/a:/b", "/c:/d:ro"]}, "--mount_paths=/c:/d:ro"),
        ({"mount_paths": {"/a": "/b"}}, "--mount_paths=/a:/b"),
        ({"run_after": ["one", "two"]}, "--run_after=two"),
        ({"dry_run": True}, "--dry_run"),
        ({"reuse_code": False}, "--no-reuse_code"),
        ({"on_change": "restart"}, "--on_change=restart"),
        ({"cluster": {"executor": "local"}}, "--cluster=(given as a mapping)"),
    ],
)
def test_values_of_every_kind_are_spelt_as_they_are_typed(values, word):
    assert word in command_line("nemo_rl sft", options("nemo_rl sft", **SFT, **values), ())


def test_the_words_make_the_same_options_again():
    given = options(
        "nemo_rl sft",
        **SFT,
        mount_paths=["/a:/b", "/c:/d:ro"],
        run_after=["one", "two"],
        num_training_jobs=3,
        backend="megatron",
        average_steps="10,20",
        exclusive=True,
        dry_run=True,
    )
    sft = entry("nemo_rl sft").load()
    words = command_line("nemo_rl sft", given, ())[2:]
    assert divide(words, sft.all_options, takes_extras=True).problems == []
    assert _typed(sft, words) == given


def _typed(command, words):
    from skills_pipe.pipeline.console.command import CommandLine

    line = CommandLine(None, context_settings={"obj": lambda: command}, add_help_option=False)
    return build(command.options, line.make_context(None, list(words)).params)


def test_benchmarks_are_spelt_with_their_seeds():
    given = options("eval", model="m", output_dir="/out", server_type="hf", benchmarks="gsm8k:4,arithmetic")
    words = command_line("eval", given, ())
    assert [word for word in words if "benchmarks" in word] == ["--benchmarks=gsm8k:4", "--benchmarks=arithmetic"]
    assert _typed(entry("eval").load(), words[1:]) == given


def test_a_command_to_run_comes_last_and_as_it_is():
    given = options("run_cmd", argv=("python", "-c", "print('a b')", "--num_gpus=3"), num_gpus=1)
    words = command_line("run_cmd", given, ())
    assert words[-5:] == ("--", "python", "-c", "print('a b')", "--num_gpus=3")
    assert _typed(entry("run_cmd").load(), words[1:]).argv == given.argv


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("++logger.wandb.api_key=abc", "++logger.wandb.api_key=***"),
        ("HF_TOKEN=abc", "HF_TOKEN=***"),
        ("--command=HF_TOKEN=abc python x.py", "--command=HF_TOKEN=*** python x.py"),
        ("++a.b=HF_TOKEN=x", "++a.b=HF_TOKEN=***"),
    ],
)
def test_secrets_are_hidden_by_their_names(word, shown):
    assert hidden(word) == shown


@pytest.mark.parametrize("word", ["++inference.tokens_to_generate=5", "--tokenizer=x", "++keys.a=1", "a=b=c", "token"])
def test_negative_control_other_words_are_left_as_they_are(word):
    assert hidden(word) == word


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_spelt(name):
    command = entry(name).load()
    required = {option.name: "hf" for option in command.all_options if option.required}
    assert command_line(name, build(command.options, required), ())[: len(name.split())] == tuple(name.split())
