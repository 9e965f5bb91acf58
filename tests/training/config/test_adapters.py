"""Adapters in the configuration: the sections of both backends, patterns of modules, rules."""

from __future__ import annotations

import pytest

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import load_config, without_effect
from skills_pipe.training.config.adapters import AdapterSpec, adapter_spec, matches
from skills_pipe.training.config.load import ConfigErrors

NEEDED = ["policy.model_name=/models/base", "data.train_data_path=a.jsonl"]
LORA = "policy.dtensor_cfg.lora_cfg"
ENABLED = [*NEEDED, f"{LORA}.enabled=true"]
LEAVES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LLAMA = [
    *(f"model.layers.{layer}.self_attn.{leaf}" for layer in range(2) for leaf in LEAVES[:4]),
    *(f"model.layers.{layer}.mlp.{leaf}" for layer in range(2) for leaf in LEAVES[4:]),
    "lm_head",
]


def spec(*overrides) -> AdapterSpec | None:
    return adapter_spec(load_config(overrides=[*ENABLED, *overrides]).policy)


def chosen(*overrides) -> list[str]:
    return list(spec(*overrides).choose(LLAMA))


def test_off_by_default():
    assert adapter_spec(load_config(overrides=NEEDED).policy) is None


def test_the_defaults_are_those_of_the_guide():
    lora = load_config(overrides=NEEDED).policy.dtensor_cfg.lora_cfg
    assert (lora.enabled, lora.target_modules, lora.exclude_modules, lora.match_all_linear) == (False, (), (), True)
    assert (lora.dim, lora.alpha, lora.dropout, lora.dropout_position) == (8, 32, 0.0, "post")
    assert (lora.lora_A_init, lora.use_triton) == ("xavier", True)


def test_the_scale_is_alpha_over_dim():
    assert spec(f"{LORA}.dim=16", f"{LORA}.alpha=24").scale == 1.5
    assert spec(f"{LORA}.dim=16", f"{LORA}.alpha=24", f"{LORA}.use_rslora=true").scale == 6.0


def test_all_linear_layers_but_the_output_layer():
    assert chosen() == LLAMA[:-1]


def test_targets_beside_the_default_of_all_linear_layers_are_refused():
    with pytest.raises(ConfigError, match=r"match_all_linear, true by default.*set .*match_all_linear=false"):
        load_config(overrides=[*ENABLED, f"{LORA}.target_modules=[q_proj]"])


def test_all_linear_layers_that_are_asked_for_go_before_targets_and_that_is_told():
    overrides = [f"{LORA}.target_modules=[q_proj]", f"{LORA}.match_all_linear=true"]
    assert chosen(*overrides) == LLAMA[:-1]
    told = without_effect(load_config(overrides=[*ENABLED, *overrides]))
    assert any("match_all_linear=false" in sentence for sentence in told)


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("[q_proj]", ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]),
        ("['*.0.*.q_proj']", ["model.layers.0.self_attn.q_proj"]),
        ("['*.1.mlp.*']", [name for name in LLAMA if ".1.mlp." in name]),
        ("[model.layers.1.self_attn.o_proj]", ["model.layers.1.self_attn.o_proj"]),
        ("['*']", LLAMA[:-1]),
        ("[linear_qkv]", [name for name in LLAMA if name.endswith(("q_proj", "k_proj", "v_proj"))]),
        ("[linear_proj, linear_fc2]", [name for name in LLAMA if name.endswith(("o_proj", "down_proj"))]),
        ("['*.layers.0.*.linear_fc1']", ["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"]),
    ],
)
def test_targets(targets, names):
    assert chosen(f"{LORA}.match_all_linear=false", f"{LORA}.target_modules={targets}") == names


def test_neither_all_nor_targets_means_the_projections():
    assert spec(f"{LORA}.match_all_linear=false").targets == ("*_proj",)


@pytest.mark.parametrize("all_linear", ["true", "false"])
def test_what_is_excluded_gets_none(all_linear):
    found = chosen(f"{LORA}.match_all_linear={all_linear}", f"{LORA}.exclude_modules=['*.mlp.*', o_proj]")
    assert found == [name for name in LLAMA if name.endswith(("q_proj", "k_proj", "v_proj"))]


def test_a_pattern_is_for_the_whole_name():
    assert matches("q_proj", "model.layers.0.self_attn.q_proj")
    assert not matches("proj", "model.layers.0.self_attn.q_proj")
    assert not matches("layers.0.*", "model.layers.0.self_attn.q_proj")
    assert not matches("model.layers.1.*", "model.layers.11.self_attn.q_proj")
    assert not matches("*.q.proj", "model.layers.0.q_proj"), "a dot is a dot"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([f"{LORA}.target_modules=[q_prj]"], r"'q_prj' matches no linear layer.*did you mean 'q_proj'"),
        (
            [f"{LORA}.target_modules=[q_proj, '*.9.*']"],
            r"'\*\.9\.\*' matches no linear layer.*choose among q_proj, k_proj",
        ),
        ([f"{LORA}.exclude_modules=[experts]"], r"'experts' matches no linear layer"),
        ([f"{LORA}.target_modules=[lm_head]"], r"lm_head gets no adapter: output layers may be tied"),
        ([f"{LORA}.exclude_modules=['*']"], r"no linear layer of the model is left"),
    ],
)
def test_patterns_that_miss_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        chosen(f"{LORA}.match_all_linear=false", *overrides)


def test_the_section_of_megatron_becomes_the_same():
    policy = load_config(overrides=NEEDED).policy
    from dataclasses import replace

    megatron = policy.megatron_cfg
    peft = replace(megatron.peft, enabled=True, target_modules=("linear_qkv",), lora_A_init_method="uniform")
    policy = replace(policy, megatron_cfg=replace(megatron, enabled=True, peft=peft))
    found = adapter_spec(policy)
    assert (found.dim, found.alpha, found.dropout_position, found.initial) == (32, 32, "pre", "uniform")
    assert len(found.choose(LLAMA)) == 6
    everything = adapter_spec(
        replace(policy, megatron_cfg=replace(policy.megatron_cfg, peft=replace(peft, target_modules=())))
    )
    assert list(everything.choose(LLAMA)) == LLAMA[:-1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [f"{LORA}.match_all_linear=false", f"{LORA}.target_modules=[q_proj]", f"{LORA}.exclude_modules=[o_proj]"],
            "both target_modules and exclude_modules",
        ),
        ([f"{LORA}.dropout=1.0"], "must be less than 1"),
        (["policy.dtensor_cfg._v2=false"], "first version of this backend has no adapters"),
        (
            ["policy.tensor_model_parallel_size=2", f"{LORA}.dropout=0.1"],
            r"lora_cfg\.dropout: ranks that share a layer would each drop out something else.*override",
        ),
        (["policy.megatron_cfg.peft.enabled=true"], "is for the megatron backend, which is off"),
        (["++checkpointing.peft_config={r: 8}"], "is written from the adapters"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides, message):
    with pytest.raises((ConfigError, ConfigErrors), match=message):
        load_config(overrides=[*ENABLED, *overrides])


@pytest.mark.parametrize(
    "overrides",
    [
        ["policy.tensor_model_parallel_size=2", "policy.sequence_parallel=true", f"{LORA}.use_dora=true"],
        ["policy.expert_model_parallel_size=2", f"{LORA}.dropout=0.1"],
        ["policy.context_parallel_size=2", f"{LORA}.dropout=0.1"],
    ],
)
def test_adapters_go_with_every_kind_of_parallelism(overrides):
    assert adapter_spec(load_config(overrides=[*ENABLED, *overrides]).policy) is not None


def test_checkpoints_of_adapters_need_adapters():
    with pytest.raises(ConfigError, match="no adapters are trained"):
        load_config(overrides=[*NEEDED, "checkpointing.is_peft=true"])
    assert load_config(overrides=ENABLED).checkpointing.is_peft


@pytest.mark.parametrize(
    ("override", "switch"),
    [
        (f"{LORA}.use_dora=true", f"{LORA}.enabled"),
        (f"{LORA}.dim=16", f"{LORA}.enabled"),
        ("policy.dtensor_cfg.quantization.bnb_4bit_quant_type=fp4", "policy.dtensor_cfg.quantization.load_in_4bit"),
    ],
)
def test_an_override_of_a_section_that_is_off_is_refused(tmp_path, override, switch):
    """All weights would be trained, or those below adapters kept whole, without a word."""
    adapters = [f"{LORA}.enabled=true"] if "quantization" in switch else []
    with pytest.raises(ConfigError, match=rf"has no effect: {switch} is false.*add \+\+{switch}=true"):
        load_config(None, [*NEEDED, *adapters, override])
    # Who says that it is off knows it; and a file may describe what it does not use.
    load_config(None, [*NEEDED, *adapters, override, f"{switch}=false"])
    key, _, value = override.removeprefix("policy.dtensor_cfg.").partition("=")
    section, _, name = key.partition(".")
    path = tmp_path / "own.yaml"
    path.write_text(f"policy: {{dtensor_cfg: {{{section}: {{{name}: {value}}}}}}}")
    load_config(path, [*NEEDED, *adapters])
