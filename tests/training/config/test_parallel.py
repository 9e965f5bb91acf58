"""Layouts of ranks: from the keys of a configuration to sizes, and what is refused before anything runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import check_overrides, load_config, without_effect
from skills_pipe.training.config.parallel import TENSOR_PARALLEL_FAMILIES, Layout
from skills_pipe.training.config.rules.parallel import unshareable
from tests.training.config.test_estimate import LLAMA_8B

NEEDED = ["policy.model_name=/models/base", "data.train_data_path=rows.jsonl"]


QWEN_30B = {"model_type": "qwen3_moe", "num_experts": 128, "num_experts_per_tok": 8}


def fsdp(*overrides: str):
    return load_config(None, [*NEEDED, *overrides]).policy.dtensor_cfg


def test_by_default_the_weights_are_sharded_over_all_ranks():
    assert Layout.of(fsdp(), ranks=6) == Layout(shard=6)


@pytest.mark.parametrize("prefix", ["policy.tensor_model_parallel_size", "policy.dtensor_cfg.tensor_parallel_size"])
def test_the_keys_of_all_backends_and_those_of_this_one_mean_the_same(prefix):
    config = fsdp(f"{prefix}=2", "policy.sequence_parallel=true", "policy.dtensor_cfg.dp_replicate_size=2")

    layout = Layout.of(config, ranks=8)

    assert layout == Layout(replicate=2, shard=2, tensor=2, sequence_parallel=True)
    assert str(layout) == "replicate 2 x shard 2 x tensor 2 with sequence parallelism"
    assert (layout.ranks, layout.same_rows, layout.sizes) == (8, 2, (2, 2, 1, 2))


def test_the_keys_of_all_backends_reach_megatron_too():
    policy = load_config(None, [*NEEDED, "policy.tensor_model_parallel_size=2", "policy.sequence_parallel=true"]).policy
    assert (policy.megatron_cfg.tensor_model_parallel_size, policy.megatron_cfg.sequence_parallel) == (2, True)


def test_a_key_that_a_section_of_the_file_overrules_is_refused(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("policy:\n  dtensor_cfg:\n    tensor_parallel_size: 1\n")
    message = r"policy\.tensor_model_parallel_size has no effect: policy\.dtensor_cfg\.tensor_parallel_size is 1"
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path, [*NEEDED, "policy.tensor_model_parallel_size=4"])
    assert caught.value.fix == "set policy.dtensor_cfg.tensor_parallel_size instead"

    assert load_config(path, [*NEEDED, "policy.dtensor_cfg.tensor_parallel_size=2"])


KINDS = {
    "policy.tensor_model_parallel_size": "policy.dtensor_cfg.tensor_parallel_size",
    "policy.context_parallel_size": "policy.dtensor_cfg.context_parallel_size",
    "policy.expert_model_parallel_size": "policy.dtensor_cfg.expert_parallel_size",
}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(
            (f"{key}={first}", f"{own}={second}")
            for key, own in KINDS.items()
            for first, second in [(2, 1), (2, 4), (1, 2)]
        ),
        ("policy.sequence_parallel=true", "policy.dtensor_cfg.sequence_parallel=false"),
        ("policy.sequence_parallel=false", "policy.dtensor_cfg.sequence_parallel=true"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_two_keys_that_mean_the_same_and_say_something_else_are_refused(one, other, turned):
    typed = [f"++{other}", f"++{one}"] if turned else [f"++{one}", f"++{other}"]
    with pytest.raises(ConfigError) as caught:
        load_config(None, [*NEEDED, *typed])
    assert caught.value.what == f"{one} and {other} contradict each other"
    assert caught.value.where == f"override '++{one}' and override '++{other}'"

    # The controls: one alone, and both that say the same.
    load_config(None, [*NEEDED, typed[1]])
    same = f"++{one.partition('=')[0]}={other.partition('=')[2]}"
    assert load_config(None, [*NEEDED, same, f"++{other}"]) == load_config(None, [*NEEDED, f"++{other}", same])


def test_so_are_two_in_a_file_but_an_override_may_replace_what_a_file_says(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("policy:\n  tensor_model_parallel_size: 4\n  dtensor_cfg:\n    tensor_parallel_size: 1\n")
    with pytest.raises(ConfigError, match=rf"contradict each other \({path}:2 and {path}:4\): set one of them"):
        load_config(path, NEEDED)

    path.write_text("policy:\n  tensor_model_parallel_size: 4\n")
    assert load_config(path, NEEDED).policy.dtensor_cfg.tensor_parallel_size == 4
    replaced = load_config(path, [*NEEDED, "policy.dtensor_cfg.tensor_parallel_size=2"])
    assert replaced.policy.dtensor_cfg.tensor_parallel_size == 2


def test_a_section_of_the_other_backend_contradicts_nothing(tmp_path):
    path = tmp_path / "own.yaml"
    sizes = "dtensor_cfg: {tensor_parallel_size: 1}, megatron_cfg: {tensor_model_parallel_size: 4}"
    path.write_text(f"policy: {{{sizes}}}")
    assert load_config(path, NEEDED).policy.dtensor_cfg.tensor_parallel_size == 1


def test_on_megatron_its_own_keys_are_compared():
    backend = ["policy.dtensor_cfg.enabled=false", "policy.megatron_cfg.enabled=true"]
    sizes = ["policy.pipeline_model_parallel_size=2", "policy.megatron_cfg.pipeline_model_parallel_size=4"]
    told = [str(problem) for problem in check_overrides([*backend, *sizes])]
    assert sum("contradict each other" in line for line in told) == 1
    assert not any("contradict" in str(problem) for problem in check_overrides([*backend, sizes[0]]))


@pytest.mark.parametrize(
    ("overrides", "ranks", "message"),
    [
        (["policy.tensor_model_parallel_size=4"], 6, r"6 ranks cannot be divided into groups of 4 \(tensor 4\)"),
        (["policy.dtensor_cfg.dp_replicate_size=3"], 4, "4 data parallel ranks cannot hold 3 copies of the model"),
        (
            ["policy.tensor_model_parallel_size=2", "policy.dtensor_cfg.dp_replicate_size=4"],
            4,
            "2 data parallel ranks cannot hold 4 copies",
        ),
        (
            ["policy.expert_model_parallel_size=4", "policy.dtensor_cfg.dp_replicate_size=4"],
            8,
            "the 2 ranks of a copy of the model cannot be divided into groups of 4 that share the experts",
        ),
    ],
)
def test_sizes_that_do_not_divide_the_ranks_are_refused(overrides, ranks, message):
    with pytest.raises(ConfigError, match=message):
        Layout.of(fsdp(*overrides), ranks=ranks)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4))
def test_every_rank_is_in_one_group_of_each_kind(replicate, shard, context, tensor):
    layout = Layout(replicate=replicate, shard=shard, context=context, tensor=tensor)
    shares = [rank // layout.same_rows for rank in range(layout.ranks)]
    assert set(shares) == set(range(replicate * shard))
    assert all(shares.count(share) == context * tensor for share in shares)


def test_noise_that_each_rank_would_draw_for_itself_is_refused():
    with pytest.raises(ConfigError, match="neftune_noise_alpha: ranks that share a layer"):
        fsdp("policy.tensor_model_parallel_size=2", "policy.neftune_noise_alpha=5")
    with pytest.raises(ConfigError, match="neftune_noise_alpha: ranks that share a sequence"):
        fsdp("policy.context_parallel_size=2", "policy.neftune_noise_alpha=5")
    fsdp("policy.neftune_noise_alpha=5")


def test_sequence_parallelism_of_one_rank_has_no_effect_and_says_so():
    config = load_config(None, [*NEEDED, "policy.sequence_parallel=true"])
    assert not Layout.of(config.policy.dtensor_cfg, ranks=2).sequence_parallel
    (sentence,) = without_effect(config)
    assert sentence.startswith("policy.dtensor_cfg.sequence_parallel:")


def test_a_length_that_ranks_need_is_no_wish_and_another_one_says_that_it_has_no_effect():
    sizes = ["policy.tensor_model_parallel_size=2", "policy.context_parallel_size=2"]
    assert without_effect(load_config(None, [*NEEDED, *sizes])) == []
    wished = load_config(None, [*NEEDED, *sizes, "policy.make_sequence_length_divisible_by=64"])
    assert without_effect(wished) == ["policy.make_sequence_length_divisible_by: rows have no padding"]


@pytest.mark.parametrize(
    ("layout", "multiple"),
    [
        (Layout(shard=4), 1),
        (Layout(tensor=4), 1),
        (Layout(tensor=4, sequence_parallel=True), 4),
        (Layout(context=2), 4),
        (Layout(context=4, tensor=2), 8),
        (Layout(context=2, tensor=3, sequence_parallel=True), 12),
    ],
    ids=str,
)
def test_what_divides_the_tokens_of_every_row(layout, multiple):
    assert layout.row_multiple == multiple


def test_models_that_ranks_can_share():
    assert unshareable(LLAMA_8B, Layout(tensor=8)) == []
    assert unshareable(LLAMA_8B, Layout(tensor=8, context=16)) == []
    assert unshareable({"model_type": "gpt2"}, Layout(context=4)) == []
    assert unshareable({**LLAMA_8B, "model_type": "phi3", "resid_pdrop": 0.0}, Layout(tensor=8)) == []
    assert unshareable({**LLAMA_8B, "model_type": "phi3", "resid_pdrop": 0.1}, Layout(shard=8)) == []
    assert unshareable({"model_type": "unheard-of"}, Layout(shard=8)) == []
    assert unshareable(QWEN_30B, Layout(shard=2, context=4, expert=8)) == []


NO_EXPERTS = "the model has no experts that 8 ranks could share: its config.json has no num_experts"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LLAMA_8B, "expert parallelism is proven exact for qwen3_moe, gpt_oss, not for llama"),
        ({**QWEN_30B, "num_experts": 100}, "the 100 experts of the model cannot be divided over 8 ranks"),
        (
            {"model_type": "qwen3_moe", "num_local_experts": 12},
            "the 12 experts of the model cannot be divided over 8 ranks",
        ),
        ({"model_type": "qwen3_moe"}, NO_EXPERTS),
        ({"model_type": "gpt_oss", "num_local_experts": None}, NO_EXPERTS),
        ({"model_type": "qwen3_moe", "num_experts": 0}, NO_EXPERTS),
    ],
)
def test_experts_that_cannot_be_shared_are_refused_with_the_reason(model, message):
    (problem,) = unshareable(model, Layout(shard=8, expert=8))
    assert (problem.what, problem.where) == (message, "policy.expert_model_parallel_size")
    assert problem.fix


QWEN_30B_SIZES = {**LLAMA_8B, **QWEN_30B, "moe_intermediate_size": 768}


def test_ranks_that_share_layers_share_experts_with_those_that_exchange_tokens():
    assert unshareable(QWEN_30B_SIZES, Layout(tensor=8)) == []
    assert unshareable(QWEN_30B_SIZES, Layout(shard=16, tensor=8, expert=16)) == []
    assert unshareable({**QWEN_30B_SIZES, "intermediate_size": 3001}, Layout(tensor=2)) == [], "no layer has an MLP"

    (alone,) = unshareable({**QWEN_30B_SIZES, "num_experts": 100}, Layout(tensor=8))
    assert (alone.what, alone.where, alone.fix) == (
        "the 100 experts of the model cannot be divided over 8 ranks",
        "policy.tensor_model_parallel_size",
        "choose a divisor of 100",
    )
    (both,) = unshareable(QWEN_30B_SIZES, Layout(shard=32, tensor=8, expert=32))
    assert (both.what, both.where, both.fix) == (
        "the 128 experts of the model cannot be divided over 256 ranks",
        "policy.expert_model_parallel_size",
        "choose a divisor of 128: policy.expert_model_parallel_size times policy.tensor_model_parallel_size",
    )


def test_experts_are_shared_by_ranks_of_one_copy_of_the_model():
    config = fsdp("policy.expert_model_parallel_size=4", "policy.context_parallel_size=2")
    layout = Layout.of(config, ranks=8)
    assert layout == Layout(shard=4, context=2, expert=4)
    assert str(layout) == "shard 4 x context 2, experts over 4"
    assert (layout.ranks, layout.same_rows) == (8, 2)


def test_sequences_of_models_that_are_not_proven_are_refused():
    (problem,) = unshareable({**LLAMA_8B, "model_type": "unheard-of"}, Layout(context=2))
    assert problem.what.startswith("context parallelism is proven exact for llama, ")
    assert problem.what.endswith(", not for unheard-of")
    assert (problem.where, bool(problem.fix)) == ("policy.context_parallel_size", True)


@pytest.mark.parametrize(
    ("changes", "tensor", "message"),
    [
        (
            {"model_type": "gpt2"},
            2,
            f"proven exact for {', '.join(TENSOR_PARALLEL_FAMILIES)}, not for gpt2",
        ),
        (
            {"model_type": "gemma", "num_key_value_heads": 1},
            2,
            "the model has only one of its key-value heads, which 2 ranks cannot share",
        ),
        (
            {"model_type": "phi3", "resid_pdrop": 0.1},
            2,
            "would each drop out other values of what all of them hold (resid_pdrop)",
        ),
        ({}, 16, "the 8 key-value heads of the model cannot be divided over 16 ranks"),
        ({"vocab_size": 128257}, 2, "the 128257 words of the vocabulary of the model cannot be divided over 2 ranks"),
        ({"intermediate_size": 3001}, 2, "the 3001 neurons of the MLP of the model cannot be divided over 2 ranks"),
    ],
)
def test_models_whose_layers_cannot_be_shared_are_refused_with_the_reason(changes, tensor, message):
    (problem,) = unshareable({**LLAMA_8B, **changes}, Layout(tensor=tensor))
    assert problem.what.endswith(message)
    assert problem.fix
