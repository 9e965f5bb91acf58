"""A configuration is loaded, overridden, resolved, checked; everything wrong with it is said at once."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import (
    ConfigErrors,
    ConfigWarning,
    TrainingConfig,
    check_overrides,
    load_config,
    to_yaml,
)

NEEDED = ["policy.model_name=/models/base", "data.train_data_path=rows.jsonl"]


def load(*overrides, text=None, tmp_path=None, strict=True):
    path = None
    if text is not None:
        path = tmp_path / "own.yaml"
        path.write_text(text)
    return load_config(path, [*NEEDED, *overrides], strict=strict)


def problems_of(*overrides, **kwargs):
    with pytest.raises(ConfigError) as caught:
        load(*overrides, **kwargs)
    error = caught.value
    return [str(problem) for problem in (error.problems if isinstance(error, ConfigErrors) else [error])]


def test_overrides_reach_the_typed_tree():
    config = load("sft.max_num_steps=60", "++policy.train_global_batch_size=8", "+logger.wandb.name=first try")
    assert isinstance(config, TrainingConfig)
    assert config.sft.max_num_steps == 60
    assert config.policy.train_global_batch_size == 8
    assert config.logger.wandb.name == "first try"


def test_the_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load().sft.seed = 1


def test_derived_values_follow_overrides():
    config = load("policy.max_total_sequence_length=512", "policy.train_micro_batch_size=4", "policy.lr=3e-4")
    assert config.policy.sequence_packing.train_mb_tokens == 2048
    assert config.data.max_input_seq_length == 512
    assert config.policy.optimizer.kwargs["lr"] == 3e-4
    assert config.policy.megatron_cfg.optimizer.lr == 3e-4


def test_resolvers_and_relative_interpolation(tmp_path):
    text = """
sft: {max_num_steps: "${div:64,2}", val_period: "${add:2,3}", val_batches: "${max:1,4}", seed: "${.val_batches}"}
"""
    sft = load(text=text, tmp_path=tmp_path).sft
    assert (sft.max_num_steps, sft.val_period, sft.val_batches, sft.seed) == (32, 5, 4, 4)


@pytest.mark.parametrize("written", ["1e-5", "1.0e-5", "0.00001", "'1e-5'", '"1e-5"'])
def test_a_small_number_is_a_number_however_it_is_written(tmp_path, written):
    assert load(f"policy.lr={written}").policy.lr == 1e-5
    assert load(text=f"policy: {{lr: {written}}}", tmp_path=tmp_path).policy.lr == 1e-5


@pytest.mark.parametrize("written", ["null", "None", "'None'"])
def test_null_may_be_written_as_python_writes_it(written):
    assert load(f"checkpointing.keep_top_k={written}").checkpointing.keep_top_k is None
    assert load(f"policy.tokenizer.chat_template={written}").policy.tokenizer.chat_template is None


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("sft.seed=abc", "sft.seed must be a whole number, not 'abc'"),
        ("sft.seed=1.5", "sft.seed must be a whole number, not 1.5"),
        ("sft.seed=true", "sft.seed must be a whole number, not True"),
        ("sft.seed=null", "sft.seed must be a whole number, not None"),
        ("sft.max_num_steps=0", "sft.max_num_steps must be at least 1, not 0"),
        ("policy.lr=nan", "policy.lr must be a number, not nan"),
        ("policy.lr=[1]", "policy.lr must be a number, not [1]"),
        ("checkpointing.enabled=1", "checkpointing.enabled must be true or false, not 1"),
        ("policy.precision=bf16", "policy.precision must be bfloat16, float16 or float32, not 'bf16'"),
        (
            "checkpointing.on_change=restart",
            "to begin anew, name another checkpointing.checkpoint_dir, or start it by `ns",
        ),
        ("policy=3", "policy must be a section of keys, not 3"),
        ("policy.optimizer.kwargs=3", "policy.optimizer.kwargs must be a mapping of keys, not 3"),
        ("policy.dtensor_cfg.lora_cfg.target_modules=q_proj", "target_modules must be a list, not 'q_proj'"),
        ("policy.model_name={a: 1}", "policy.model_name must be text, not {'a': 1}"),
    ],
)
def test_a_value_that_does_not_fit_names_key_place_and_expectation(override, expected):
    (problem,) = problems_of(override)
    assert expected in problem
    assert f"(override {override!r})" in problem


def test_a_whole_number_may_come_out_of_a_division_or_be_written_as_1e3():
    assert load("sft.max_num_steps=1e3").sft.max_num_steps == 1000


def test_everything_wrong_is_said_at_once(tmp_path):
    text = """
sft:
  max_num_step: 10
  val_period: often
nonsense: {a: 1}
"""
    found = problems_of(
        "++policy.train_globl_batch_size=3",
        "policy.modelname=x",
        "checkpointing.metric_name=a,b",
        "logger.log_dir=${nowhere}",
        "policy.precision=int8",
        "~data.shufle",
        text=text,
        tmp_path=tmp_path,
    )
    path = tmp_path / "own.yaml"
    expected = [
        f"unknown key sft.max_num_step ({path}:3): did you mean 'sft.max_num_steps'?",
        f"sft.val_period must be a whole number, not 'often' ({path}:4)",
        f"unknown key nonsense ({path}:5)",
        "unknown key policy.train_globl_batch_size (override '++policy.train_globl_batch_size=3'): "
        "did you mean 'policy.train_global_batch_size'?",
        "unknown key policy.modelname (override 'policy.modelname=x'): did you mean 'policy.model_name'?",
        "the override 'checkpointing.metric_name=a,b' names several values",
        "logger.log_dir cannot be resolved",
        "policy.precision must be bfloat16, float16 or float32, not 'int8'",
        "data.shufle cannot be removed",
    ]
    for line in expected:
        assert sum(problem.startswith(line) for problem in found) == 1, (line, found)
    assert len(found) == len(expected)


def test_the_combined_error_has_one_line_per_problem():
    with pytest.raises(ConfigErrors) as caught:
        load("sft.seed=a", "sft.val_period=b")
    first, *lines = str(caught.value).splitlines()
    assert first == "the training configuration has 2 problems:"
    assert [line.strip("- ") for line in lines] == [str(problem) for problem in caught.value.problems]


def test_what_must_be_set_is_named_with_the_place_that_leaves_it_open():
    with pytest.raises(ConfigErrors) as caught:
        load_config(None, [])
    model, data = map(str, caught.value.problems)
    assert model.startswith("policy.model_name is not set (the packaged sft.yaml, line ")
    assert data.startswith("there is no training data (data.train_data_path)")


def test_an_unknown_key_can_be_let_pass_with_a_warning():
    with pytest.warns(ConfigWarning, match=r"ignored: unknown key sft\.speed"):
        config = load("++sft.speed=9", strict=False)
    assert config == load()


def test_an_interpolation_below_a_key_with_a_dot_is_an_error_not_a_crash(tmp_path):
    (problem,) = problems_of(text='policy: {hf_config_overrides: {"a.b": "${nowhere}"}}', tmp_path=tmp_path)
    assert "cannot be resolved" in problem


def test_a_followed_mistake_is_named_when_it_is_the_only_one():
    (problem,) = problems_of("sft.val_batches=x", "sft.val_period=${sft.val_batches}")
    assert problem.startswith("sft.val_batches must be a whole number")
    (problem,) = problems_of("sft.val_period=${policy.precision}")
    assert problem.startswith("sft.val_period must be a whole number, not 'bfloat16'")


def test_a_wrong_value_is_an_error_even_when_unknown_keys_pass():
    with pytest.warns(ConfigWarning), pytest.raises(ConfigError, match=r"sft\.seed"):
        load("++sft.speed=9", "sft.seed=x", strict=False)


def test_a_removed_key_falls_back_or_is_missed():
    assert load("~policy.tokenizer.chat_template").policy.tokenizer.chat_template == "default"
    assert load("~checkpointing.keep_top_k").checkpointing.keep_top_k is None
    assert problems_of("~sft.seed")[0].startswith("sft.seed is missing")


def test_free_sections_take_any_key():
    kwargs = load("++policy.optimizer.kwargs.amsgrad=true", "~policy.optimizer.kwargs.eps").policy.optimizer.kwargs
    assert kwargs["amsgrad"] is True
    assert "eps" not in kwargs
    assert load("++policy.hf_config_overrides={rope_theta: 5e5}").policy.hf_config_overrides == {"rope_theta": 5e5}


def test_a_section_that_is_null_by_default_can_be_filled_key_by_key():
    config = load("data.train.data_path=other.jsonl", "~data.train_data_path")
    assert [dataset.data_path for dataset in config.data.train] == ["other.jsonl"]


def test_preflight_finds_misspelt_keys_and_wrong_values_but_not_what_is_still_to_be_set():
    assert check_overrides([]) == []
    assert check_overrides(["++sft.max_num_steps=10", "++policy.tensor_model_parallel_size=1"]) == []
    found = [str(problem) for problem in check_overrides(["++sft.max_num_step=10", "++sft.seed=x"])]
    assert found == [
        "unknown key sft.max_num_step (override '++sft.max_num_step=10'): did you mean 'sft.max_num_steps'?",
        "sft.seed must be a whole number, not 'x' (override '++sft.seed=x')",
    ]


def test_preflight_names_what_is_not_supported():
    (problem,) = check_overrides(["++policy.pipeline_model_parallel_size=4"])
    assert "pipeline_model_parallel_size" in str(problem)


def test_preflight_reports_an_unreadable_file_instead_of_raising(tmp_path):
    (problem,) = check_overrides([], tmp_path / "none.yaml")
    assert "does not exist" in str(problem)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["policy.lr=2e-5", "policy.max_grad_norm=null", "sft.max_num_epochs=3"],
        ["++policy.scheduler={name: torch.optim.lr_scheduler.ConstantLR, kwargs: {factor: 0.5}}"],
        ["data.val_data_path=held.jsonl", "data.input_key=question", "policy.tokenizer.chat_template=null"],
        ["policy.optimizer.kwargs.lr=5e-5"],
        ["policy.optimizer.name=torch.optim.SGD"],
    ],
)
def test_a_stored_configuration_loads_back_to_an_equal_one(tmp_path, overrides):
    config = load(*overrides)
    stored = tmp_path / "config.yaml"
    stored.write_text(to_yaml(config))
    assert load_config(stored) == config
    stored.write_text(to_yaml(config).replace("seed: 42", "seed: 43"))
    assert load_config(stored) != config


def test_importing_and_loading_needs_no_torch_and_importing_alone_no_omegaconf():
    script = """
import sys
import skills_pipe.training.config as config
assert "omegaconf" not in sys.modules and "hydra" not in sys.modules
config.check_overrides(["++sft.max_num_steps=1"])
heavy = {"torch", "transformers", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True)
