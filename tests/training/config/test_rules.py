"""Keys that do not fit each other, and what is not supported, are refused with a sentence."""

from __future__ import annotations

import pytest

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import load_config, typed_for_megatron, without_effect

NEEDED = ["policy.model_name=/models/base", "data.train_data_path=rows.jsonl"]


def test_the_defaults_break_no_rule():
    assert load_config(None, NEEDED).policy.model_name == "/models/base"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sft.max_num_epochs=100000000", "sft.max_num_steps=100000000"], "bounds the run"),
        (["sft.max_num_steps=1e8"], "bounds the run"),
        (["checkpointing.metric_name=accuracy"], "write val:NAME or train:NAME"),
        (["checkpointing.metric_name=val:accuracy"], "no metric of a run.*give one of val:val_loss, train:loss"),
        (["checkpointing.metric_name=train:grad_norm"], "no metric of a run"),
        (["++checkpointing.higher_is_better=true"], "is 'val:val_loss', and .* the worst checkpoint would be the best"),
        (["checkpointing.higher_is_better=true", "checkpointing.metric_name=train:loss"], "higher_is_better=false, or"),
        (["checkpointing.checkpoint_must_save_by='3:45:00'"], '"DD:HH:MM:SS" in quotes'),
        (["checkpointing.ft_save_period=5"], "ft_keep_latest_k"),
        (["policy.dtensor_cfg.enabled=false"], "none of the backends"),
        (["policy.megatron_cfg.enabled=true"], "both of the backends"),
        (["policy.optimizer=null"], "the fsdp backend needs one"),
        (["policy.sequence_packing.train_mb_tokens=100"], "a sample may have 4096 tokens"),
        (["data.max_input_seq_length=8192"], "more than policy.max_total_sequence_length"),
        (["policy.optimizer.kwargs.lr=1e-4", "policy.lr=1e-3"], "policy.lr has no effect"),
    ],
)
def test_a_broken_rule_is_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, [*NEEDED, *overrides])


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.val_data_path=v.jsonl", "sft.val_answers={}", "checkpointing.metric_name=val:exact_match"],
        ["checkpointing.metric_name=null"],
    ],
)
def test_more_is_better_of_what_is_no_loss(overrides):
    config = load_config(None, [*NEEDED, "checkpointing.higher_is_better=true", *overrides])
    assert config.checkpointing.higher_is_better


@pytest.mark.parametrize(
    "overrides",
    [
        ["sft.max_num_epochs=2", "sft.max_num_steps=100000000"],
        ["checkpointing.checkpoint_must_save_by='00:03:45:00'"],
        ["checkpointing.checkpoint_must_save_by=00:03:45:00"],
        ["checkpointing.ft_save_period=5", "checkpointing.ft_keep_latest_k=1"],
        ["policy.lr=1e-3", "policy.optimizer.kwargs.lr=1e-4"],
        ["policy.sequence_packing.train_mb_tokens=8192"],
        ["policy.sequence_packing.enabled=false", "policy.sequence_packing.train_mb_tokens=1"],
    ],
)
def test_what_keeps_the_rules_is_accepted(overrides):
    load_config(None, [*NEEDED, *overrides])


def test_a_time_that_yaml_reads_as_a_number_is_refused(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("checkpointing:\n  checkpoint_must_save_by: 1:00:00:00")  # YAML 1.1: 216000, base sixty
    with pytest.raises(ConfigError, match=r"own\.yaml:2.*in quotes"):
        load_config(path, NEEDED)


@pytest.mark.parametrize(
    "override",
    [
        "policy.dtensor_cfg.custom_parallel_plan=mine.plan",
        "policy.pipeline_model_parallel_size=2",
        "++policy.dtensor_cfg.env_vars={A: b}",
        "++policy.dtensor_cfg.automodel_kwargs={force_hf: true}",
        "policy.precision=float16",
        "checkpointing.save_consolidated=true",
        "++data.train.processor=own_processor",
    ],
)
def test_what_is_not_supported_is_refused_with_a_reason(override):
    with pytest.raises(ConfigError) as caught:
        load_config(None, [*NEEDED, override])
    assert ": " in caught.value.what
    assert caught.value.fix


def test_megatron_is_refused():
    with pytest.raises(ConfigError, match="there is no megatron backend yet"):
        load_config(None, [*NEEDED, "policy.dtensor_cfg.enabled=false", "policy.megatron_cfg.enabled=true"])


def test_what_is_accepted_without_effect_is_named():
    assert without_effect(load_config(None, NEEDED)) == []
    assert without_effect(load_config(None, [*NEEDED, "logger.monitor_gpus=true"])) == []
    (sentence,) = without_effect(load_config(None, [*NEEDED, "policy.min_lr=1e-7"]))
    assert sentence.startswith("policy.min_lr:") and "policy.scheduler" in sentence
    (sentence,) = without_effect(load_config(None, [*NEEDED, "policy.dtensor_cfg.recompute_granularity=selective"]))
    assert sentence.endswith("nothing is recomputed without activation_checkpointing")
    consolidated = ["checkpointing.model_cache_dir=/cache", "checkpointing.model_repo_id=me/model"]
    cache, name = without_effect(load_config(None, [*NEEDED, *consolidated]))
    assert cache.startswith("checkpointing.model_cache_dir:")
    assert name.startswith("checkpointing.model_repo_id:")


MEGATRON = "policy.megatron_cfg"


@pytest.mark.parametrize(
    ("override", "advice"),
    [
        (
            "optimizer.lr=5e-5",
            "optimizer.lr: the fsdp backend does not read it; set policy.lr or policy.optimizer.kwarg",
        ),
        ("optimizer.adam_beta2=0.9", "set policy.optimizer"),
        ("scheduler.lr_warmup_iters=50", "set policy.scheduler"),
        ("peft.dim=16", "set policy.dtensor_cfg.lora_cfg.dim"),
        ("peft.lora_dtype=float32", "set policy.dtensor_cfg.lora_cfg"),
        ("tensor_model_parallel_size=2", "set policy.tensor_model_parallel_size"),
        ("activation_checkpointing=true", "set policy.dtensor_cfg.activation_checkpointing"),
        ("moe_permute_fusion=false", "leave it out"),
        ("pipeline_model_parallel_size=2", "leave it out"),
    ],
)
def test_keys_that_were_typed_for_the_other_backend_are_named_with_those_of_this_one(override, advice):
    typed = [*NEEDED, f"++{MEGATRON}.{override}"]
    (sentence,) = typed_for_megatron(load_config(None, typed), typed)
    assert sentence.startswith(f"{MEGATRON}.{override.partition('=')[0]}: the fsdp backend does not read it; ")
    assert advice in sentence


def test_each_of_them_is_named_once():
    typed = [f"++{MEGATRON}.peft.dim=8", f"++{MEGATRON}={{peft: {{dim: 16, alpha: 8}}, enabled: false}}"]
    told = typed_for_megatron(load_config(None, [*NEEDED, *typed]), typed)
    assert [line.partition(":")[0] for line in told] == [f"{MEGATRON}.peft.dim", f"{MEGATRON}.peft.alpha"]


def test_what_a_file_says_of_the_other_backend_needs_no_remark(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("policy: {megatron_cfg: {optimizer: {lr: 5.0e-5}, peft: {dim: 16}}}")
    typed = [*NEEDED, f"++{MEGATRON}.enabled=false", "++policy.dtensor_cfg.lora_cfg.enabled=true"]
    assert typed_for_megatron(load_config(path, typed), typed) == []


def test_a_refusal_names_the_key_that_was_set(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("data:\n  train:\n    dataset_name: squad\n    processor: own")
    with pytest.raises(ConfigError) as caught:
        load_config(path, [NEEDED[0]])
    assert caught.value.where == f"{path}:4"


def test_weights_in_4_bit_do_not_lie_in_host_memory():
    packed = ["policy.dtensor_cfg.lora_cfg.enabled=true", "policy.dtensor_cfg.quantization.load_in_4bit=true"]
    load_config(None, [*NEEDED, *packed])
    load_config(None, [*NEEDED, "policy.dtensor_cfg.cpu_offload=true"])
    with pytest.raises(ConfigError, match="weights in 4 bit stay on the GPUs"):
        load_config(None, [*NEEDED, *packed, "policy.dtensor_cfg.cpu_offload=true"])


@pytest.mark.parametrize(
    ("optimizer", "overrides", "message"),
    [
        ("torch.optim.Muon", ["policy.dtensor_cfg.cpu_offload=true"], "Muon is not proven on shards in host memory"),
        ("torchao.optim.AdamW8bit", ["policy.dtensor_cfg.cpu_offload=true"], "AdamW8bit is not proven on shards in ho"),
        ("torchao.optim.AdamW8bit", ["policy.tensor_model_parallel_size=2"], "cannot be read again where ranks share"),
        ("torchao.optim.AdamW8bit", ["policy.expert_model_parallel_size=2"], "cannot be read again where ranks share"),
    ],
)
def test_optimizers_of_whole_rows_and_matrices_are_refused_where_they_are_not_proven(optimizer, overrides, message):
    named = f"policy.optimizer.name={optimizer}"
    load_config(None, [*NEEDED, named])
    load_config(None, [*NEEDED, *overrides])
    with pytest.raises(ConfigError, match=message):
        load_config(None, [*NEEDED, named, *overrides])
