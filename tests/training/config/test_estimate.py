"""The estimate of memory beside what torch really keeps, for a tiny model of each family."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from skills_pipe.training.config import load_config
from skills_pipe.training.config.estimate import (
    FAMILIES,
    ModelShape,
    activation_bytes,
    estimate_memory,
    seconds_per_step,
)
from skills_pipe.training.config.families import ARCHITECTURES
from skills_pipe.training.models.attention import Documents
from skills_pipe.training.models.loss import SupervisedLoss
from skills_pipe.training.optim import build_optimizer

TOKENS = 256
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 500,
}
VARIANTS = [
    *((family, {}) for family in FAMILIES),
    ("llama", {"tie_word_embeddings": True}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("qwen3", {"head_dim": 32, "attention_bias": True}),
    ("llama", {"num_key_value_heads": 8}),
]


@pytest.fixture(params=VARIANTS, ids=lambda variant: "-".join([variant[0], *variant[1]]))
def model(request):
    family, changes = request.param
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SIZES, **changes}))


def shape_of(model) -> ModelShape:
    """As ``config.json`` says it, through JSON."""
    shape = ModelShape.of(json.loads(model.config.to_json_string()))
    assert shape is not None
    return shape


def policy(*overrides: str):
    needed = ["++policy.model_name=m", "++data.train_data_path=d.jsonl", "++sft.max_num_steps=1"]
    return load_config(None, [*needed, *overrides]).policy


def kept_bytes(model, tokens: int) -> int:
    """Bytes that autograd keeps between forward and backward pass, beside the weights; the loss is not looked at."""
    SupervisedLoss(model)  # sets the attention with which packed rows are trained
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.randint(0, SIZES["vocab_size"], (1, tokens))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.base_model(
            input_ids=ids,
            position_ids=torch.arange(tokens)[None],
            attention_mask=None,
            use_cache=False,
            documents=Documents.of(torch.tensor([0, tokens], dtype=torch.int32)),
        )
    assert output.last_hidden_state.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def test_the_families_are_those_that_are_trained_and_are_made_like_llama():
    others = {"gpt2", "qwen3_moe", "gpt_oss", "gemma", "gemma2", "gemma3_text", "phi3"}
    assert {*FAMILIES} | others == set(ARCHITECTURES)


def test_weights_are_counted_exactly(model):
    assert shape_of(model).parameters == sum(parameter.numel() for parameter in model.parameters())


def test_weights_gradients_and_optimizer_are_exact_on_one_process(model):
    settings = policy()
    optimizer = build_optimizer(model.parameters(), settings.optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    needed = estimate_memory(shape_of(model), settings, ranks=1)
    assert needed is not None
    weights = sum(parameter.nbytes for parameter in model.parameters())
    gradients = sum(parameter.grad.nbytes for parameter in model.parameters())
    states = [state[name].nbytes for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert (needed.weights, needed.gradients, needed.optimizer) == (weights, gradients, sum(states))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_activations_are_what_autograd_keeps_within_a_fifth(model, dtype):
    model = model.to(dtype).train()
    estimate = activation_bytes(shape_of(model), TOKENS, width=dtype.itemsize)
    measured = kept_bytes(model, TOKENS)
    assert measured <= estimate <= 1.2 * measured
    # The negative control: half of the tokens, or another width, would be found.
    assert not measured <= activation_bytes(shape_of(model), TOKENS // 2, width=dtype.itemsize) <= 1.2 * measured
    assert not measured <= activation_bytes(shape_of(model), TOKENS, width=6 - dtype.itemsize) <= 1.2 * measured


def test_recomputing_keeps_the_inputs_of_layers_and_one_layer(model):
    shape = shape_of(model)
    all_of_it = activation_bytes(shape, TOKENS, width=2)
    recomputed = activation_bytes(shape, TOKENS, width=2, recompute="full")
    deeper = replace(shape, layers=shape.layers + 1)
    assert recomputed < all_of_it
    assert activation_bytes(deeper, TOKENS, width=2, recompute="full") - recomputed == TOKENS * shape.hidden * 2


LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


def test_a_known_model_has_its_known_size():
    shape = ModelShape.of(LLAMA_8B)
    assert shape is not None and shape.parameters == 8_030_261_248


def test_sharding_divides_what_is_sharded():
    shape = ModelShape.of(LLAMA_8B)
    assert shape is not None
    one, eight = (estimate_memory(shape, policy("++policy.train_global_batch_size=8"), ranks=ranks) for ranks in (1, 8))
    assert one is not None and eight is not None
    assert eight.weights * 8 == one.weights and eight.optimizer * 8 == one.optimizer
    # One microbatch on each rank: gradients are exchanged at once.
    assert eight.gradients * 8 == one.gradients


def test_gradients_that_are_exchanged_once_per_step_stay_whole():
    shape = ModelShape.of(LLAMA_8B)
    assert shape is not None
    several = estimate_memory(shape, policy("++policy.train_global_batch_size=64"), ranks=8)
    at_once = estimate_memory(
        shape,
        policy("++policy.train_global_batch_size=64", "++policy.dtensor_cfg.defer_fsdp_grad_sync=false"),
        ranks=8,
    )
    assert several is not None and at_once is not None
    assert several.gradients == 4 * shape.parameters == 8 * at_once.gradients


def test_ranks_that_share_rows_keep_their_tokens_and_everybodys_keys_and_values():
    shape = ModelShape.of(LLAMA_8B)
    assert shape is not None
    alone, shared = (
        estimate_memory(shape, policy(*batch, f"++policy.context_parallel_size={ranks}"), ranks=8)
        for batch, ranks in ((["++policy.train_global_batch_size=8"], 1), (["++policy.train_global_batch_size=2"], 4))
    )
    assert alone is not None and shared is not None
    row = policy().sequence_packing.train_mb_tokens
    collected = shape.layers * 2 * row * shape.kv_heads * shape.head_dim * 2
    assert shared.activations == alone.activations // 4 + collected
    # Weights are sharded over all ranks nevertheless, and each pair of rows is one step.
    assert (shared.weights, shared.gradients) == (alone.weights, alone.gradients)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({**LLAMA_8B, "model_type": "gpt2"}, "another family"),
        ({**LLAMA_8B, "hidden_size": None}, "no width"),
        ({}, "nothing"),
    ],
)
def test_what_is_not_known_is_not_guessed(config, reason):
    assert ModelShape.of(config) is None, reason


def test_an_optimizer_that_is_not_known_gives_no_estimate():
    shape = ModelShape.of(LLAMA_8B)
    assert shape is not None
    assert estimate_memory(shape, policy("++policy.optimizer.name=my.own.Optimizer"), ranks=1) is None


def test_a_step_takes_six_operations_for_each_weight_and_token_and_those_of_attention():
    """32 samples of 4096 tokens of an 8B model: 6.3e15 operations, of which attention is a few per cent."""
    shape = ModelShape.of(LLAMA_8B)
    assert shape is not None
    tokens = 32 * 4096
    seconds = seconds_per_step(shape, policy(), flops=1e15)
    matrices = 6 * (shape.parameters - 128256 * 4096) * tokens / 1e15
    assert matrices < seconds < 1.1 * matrices
