"""The estimate of memory beside what torch really keeps, for a tiny model of each family."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM

from skills_pipe.training.config import load_config
from skills_pipe.training.config.estimate import (
    FAMILIES,
    Conditions,
    ModelShape,
    activation_bytes,
    estimate_memory,
    operations_per_step,
    seconds_per_step,
)
from skills_pipe.training.config.families import ARCHITECTURES
from skills_pipe.training.models.attention import Documents
from skills_pipe.training.models.flops import ModelFlops
from skills_pipe.training.models.loss import SupervisedLoss
from skills_pipe.training.optimizers.build import build_optimizer, outer_matrices
from skills_pipe.training.optimizers.ema import WeightAverage

TOKENS = 256
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 500,
}
OWN: dict[str, dict[str, Any]] = {
    "gpt2": {"n_inner": 512, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "gemma2": {"sliding_window": 96},
    "gemma3_text": {"sliding_window": 96},
    "qwen3_moe": {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 96},
    "gpt_oss": {"num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": 96},
    "phi3": {"pad_token_id": 0},
}
"""What a family needs besides to be tiny."""

VARIANTS = [
    *((family, {}) for family in FAMILIES),
    ("llama", {"tie_word_embeddings": True}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("qwen3", {"head_dim": 32, "attention_bias": True}),
    ("llama", {"num_key_value_heads": 8}),
    ("gpt2", {"activation_function": "gelu", "n_inner": None}),
    ("gpt2", {"activation_function": "relu", "resid_pdrop": 0.1, "embd_pdrop": 0.1}),
    ("gemma", {"head_dim": 16, "tie_word_embeddings": False}),
    ("gemma2", {"head_dim": 16, "attn_logit_softcapping": None}),
    ("gemma3_text", {"head_dim": 16, "num_key_value_heads": 8}),
    ("gpt_oss", {"head_dim": 16, "attention_bias": False}),
    ("qwen3_moe", {"mlp_only_layers": [1], "num_experts_per_tok": 4, "attention_bias": True}),
    ("qwen3_moe", {"decoder_sparse_step": 2}),
]


@pytest.fixture(params=VARIANTS, ids=lambda variant: "-".join([variant[0], *variant[1]]))
def model(request):
    family, changes = request.param
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SIZES, **OWN.get(family, {}), **changes}))


ON_CPU = Conditions(cpu=True)


def shape_of(model) -> ModelShape:
    """As ``config.json`` says it, through JSON."""
    shape = ModelShape.of(json.loads(model.config.to_json_string()))
    assert shape is not None
    return shape


def policy(*overrides: str):
    needed = ["++policy.model_name=m", "++data.train_data_path=d.jsonl", "++sft.max_num_steps=1"]
    return load_config(None, [*needed, *overrides]).policy


def kept_bytes(model, tokens: int, lengths: tuple[int, ...] = ()) -> int:
    """Bytes that autograd keeps between forward and backward pass, beside the weights; the loss is not looked at."""
    SupervisedLoss(model)  # sets the attention with which packed rows are trained
    parameters = (each.to_local() if isinstance(each, DTensor) else each for each in model.parameters())
    weights = {parameter.untyped_storage().data_ptr() for parameter in parameters}
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
            documents=Documents.of(torch.tensor([0, *(lengths or (tokens,))]).cumsum(0).int()),
        )
    assert output.last_hidden_state.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def test_the_families_are_those_that_are_trained():
    assert set(FAMILIES) == set(ARCHITECTURES)


def test_weights_are_counted_exactly(model):
    count = sum(parameter.numel() for parameter in model.parameters())
    assert shape_of(model).parameters == count
    # With every default written out, as a process has it, the same.
    whole = ModelShape.of(model.config.to_dict())
    assert whole is not None and whole.parameters == count
    # The controls: a layer more, and a word more, would be found.
    assert replace(shape_of(model), layers=4).parameters != count
    assert replace(shape_of(model), vocabulary=501).parameters != count


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_file_leaves_out_is_what_transformers_takes_for_it(family):
    # As many heads as Qwen's models have for keys and values by default.
    sizes = {"hidden_size": 128, "num_hidden_layers": 7, "num_attention_heads": 32, "vocab_size": 500}
    sizes |= {} if family == "gpt2" else {"intermediate_size": 344, "pad_token_id": 0}
    sizes |= {"num_experts": 8, "moe_intermediate_size": 96} if family == "qwen3_moe" else {}
    sizes |= {"num_local_experts": 8} if family == "gpt_oss" else {}
    sizes |= {"n_positions": 64} if family == "gpt2" else {}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes))

    shape = ModelShape.of({"model_type": family, **sizes})

    assert shape is not None
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.windows == ModelFlops.of(model).windows
    assert shape.experts is None or shape.experts.chosen == model.config.num_experts_per_tok
    assert shape.capped is (family == "gemma2")


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


def test_linear_layers_have_the_names_and_sizes_that_they_have_in_the_model(model):
    found = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    sizes = {name: (module.in_features, module.out_features) for name, module in found.items()}
    assert sizes.pop("lm_head")
    assert shape_of(model).linear_layers == sizes


def test_so_are_the_states_of_muon_and_the_adamw_beside_it(model):
    settings = policy("++policy.optimizer.name=torch.optim.Muon", "++policy.optimizer.kwargs={lr: 1e-3}")
    optimizer = build_optimizer(model.parameters(), settings.optimizer, outer=outer_matrices(model))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values() if value.ndim > 0]
    needed = estimate_memory(shape_of(model), settings, ranks=1)
    assert needed is not None
    assert needed.optimizer == sum(value.nbytes for value in kept)
    # The control: it is less than that of AdamW alone.
    assert needed.optimizer < 8 * sum(parameter.numel() for parameter in model.parameters())


def test_a_moving_average_is_the_weights_once_more(model):
    settings = policy("++policy.dtensor_cfg.cpu_offload=true")
    plain, averaged = (estimate_memory(shape_of(model), policy(), ranks=1, averaged=on) for on in (False, True))
    on_host = estimate_memory(shape_of(model), settings, ranks=1, averaged=True)
    assert plain is not None and averaged is not None and on_host is not None
    kept = WeightAverage(model, 0.5).state()
    assert averaged.total - plain.total == sum(kept[name].nbytes for name, _ in model.named_parameters())
    assert on_host.average == 0 and on_host.host == 20 * shape_of(model).parameters


@pytest.mark.parametrize(
    ("name", "each"), [("torchao.optim.AdamW8bit", 2.03), ("bitsandbytes.optim.AdamW8bit", 2.03), ("my.Adam4bit", 1.06)]
)
def test_states_in_few_bits_have_a_scale_for_each_block(name, each):
    shape = ModelShape.of(LLAMA_8B)
    needed = estimate_memory(shape, policy(f"++policy.optimizer.name={name}"), ranks=1)
    assert shape is not None and needed is not None
    assert needed.optimizer / shape.parameters == pytest.approx(each, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_activations_are_what_autograd_keeps_within_a_twentieth(model, dtype):
    model, shape = model.to(dtype).train(), shape_of(model)
    measured = kept_bytes(model, TOKENS)

    def estimate(tokens: int = TOKENS, width: int = dtype.itemsize) -> int:
        return activation_bytes(shape, tokens, width=width, conditions=ON_CPU)

    assert measured <= estimate() <= 1.05 * measured
    # The negative control: half of the tokens, or another width, would be found.
    assert not measured <= estimate(tokens=TOKENS // 2) <= 1.05 * measured
    assert not measured <= estimate(width=6 - dtype.itemsize) <= 1.05 * measured


@pytest.mark.parametrize("family", ["gemma2", "gpt_oss"])
def test_scores_are_kept_of_documents_that_are_one_block(family):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SIZES, **OWN[family]})).train()
    shape = shape_of(model)
    long, short = (
        activation_bytes(shape, 1024, width=4, conditions=replace(ON_CPU, document=size)) for size in (1024, 512)
    )

    assert long < 0.7 * short
    for estimate, lengths in ((long, (1024,)), (short, (512, 512))):
        measured = kept_bytes(model, 1024, lengths)
        assert measured <= estimate <= 1.05 * measured
    # Ranks that share the document have some of its tokens at once, which see half of it on average.
    shared = activation_bytes(shape, 1024, width=4, conditions=replace(ON_CPU, document=1024, looking=256))
    assert shared > long


def test_an_estimate_takes_documents_of_the_length_that_keeps_most():
    model = AutoConfig.for_model("gemma2", **{**SIZES, **OWN["gemma2"]})
    shape, row = ModelShape.of(model.to_dict()), policy().sequence_packing.train_mb_tokens
    assert shape is not None
    found = estimate_memory(shape, policy(), ranks=1)
    blocks = activation_bytes(shape, row, width=2, conditions=Conditions(document=512))
    assert found is not None and found.activations >= blocks
    assert blocks > activation_bytes(shape, row, width=2, conditions=Conditions(document=2048))


def test_without_a_kernel_for_windows_their_masks_are_kept():
    model = AutoConfig.for_model("mistral", **{**SIZES, "sliding_window": 96})
    shape = ModelShape.of(model.to_dict())
    assert shape is not None

    def kept(document, *, masks):
        conditions = Conditions(document=document, masks=masks)
        return activation_bytes(shape, 1024, width=2, conditions=conditions)

    # A number in half precision for each pair of tokens, in each layer; short documents are within their window.
    assert kept(1024, masks=True) - kept(1024, masks=False) == 2 * 1024 * 1024 * shape.layers
    assert kept(96, masks=True) == kept(96, masks=False)


def test_recomputing_keeps_the_inputs_of_layers_and_one_layer(model):
    shape = shape_of(model)
    all_of_it = activation_bytes(shape, TOKENS, width=2)
    recomputed = activation_bytes(shape, TOKENS, width=2, recompute="full")
    # Of a mixture one more with experts, for it is the largest of which one is whole.
    mixtures = (*shape.mixtures, shape.layers) if len(shape.mixtures) == shape.layers else shape.mixtures
    deeper = replace(shape, layers=shape.layers + 1, mixtures=mixtures)
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


PUBLISHED = {
    "llama 8B": (LLAMA_8B, 8_030_261_248),
    "gpt2": (
        {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257},
        124_439_808,
    ),
    "gemma 2 2B": (
        {
            "model_type": "gemma2",
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "vocab_size": 256000,
        },
        2_614_341_888,
    ),
    "phi 3 mini": (
        {
            "model_type": "phi3",
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "vocab_size": 32064,
        },
        3_821_079_552,
    ),
    "qwen 3 30B-A3B": (
        {
            "model_type": "qwen3_moe",
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
            "vocab_size": 151936,
        },
        30_532_122_624,
    ),
    "gpt-oss 20B": (
        {
            "model_type": "gpt_oss",
            "hidden_size": 2880,
            "intermediate_size": 2880,
            "num_hidden_layers": 24,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "num_local_experts": 32,
            "num_experts_per_tok": 4,
            "vocab_size": 201088,
        },
        20_914_757_184,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_known_model_has_its_known_size(name):
    config, parameters = PUBLISHED[name]
    shape = ModelShape.of(config)
    assert shape is not None and shape.parameters == parameters


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


@pytest.mark.parametrize(("ranks", "batch"), [(1, 64), (8, 8)])
def test_what_lies_in_host_memory_is_counted_there_and_nowhere_else(ranks, batch):
    shape = ModelShape.of(LLAMA_8B)
    assert shape is not None
    size = f"++policy.train_global_batch_size={batch}"
    there, here = (
        estimate_memory(shape, policy(size, f"++policy.dtensor_cfg.cpu_offload={on}"), ranks=ranks)
        for on in ("true", "false")
    )
    assert there is not None and here is not None
    assert there.weights == there.gradients == there.optimizer == 0 == here.host
    assert there.host == here.weights + here.gradients + here.optimizer == 16 * shape.parameters // ranks
    assert (there.activations, there.loss) == (here.activations, here.loss)
    # One process has all weights in the precision that computes; offloaded, two layers and what is outside of them.
    whole_layers = (shape.outer_parameters + 2 * shape.layer_parameters) * 2
    assert there.compute == whole_layers == (here.compute if ranks > 1 else there.compute) < 2 * shape.parameters


def test_gradients_that_wait_for_the_end_of_a_step_wait_on_the_gpu():
    shape = ModelShape.of(LLAMA_8B)
    assert shape is not None
    many = ("++policy.train_global_batch_size=64", "++policy.dtensor_cfg.cpu_offload=true")
    waiting = estimate_memory(shape, policy(*many), ranks=8)
    assert waiting is not None and waiting.gradients == 4 * shape.parameters


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
        ({**LLAMA_8B, "model_type": "bloom"}, "another family"),
        ({**LLAMA_8B, "model_type": "qwen3_moe"}, "no experts"),
        ({"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 9}, "no positions"),
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


@pytest.mark.parametrize("length", [64, 4096])
def test_operations_are_those_that_are_counted_on_the_model(model, length):
    settings = policy(f"++policy.max_total_sequence_length={length}", "++policy.train_global_batch_size=4")
    counted = ModelFlops.of(model).of_step([length] * 4, 4 * length)

    assert operations_per_step(shape_of(model), settings) == pytest.approx(counted, rel=1e-12)
    # The control: a layer more would be found.
    deeper = replace(shape_of(model), layers=4, windows=())
    assert operations_per_step(deeper, settings) != pytest.approx(counted, rel=1e-3)


def test_a_step_takes_six_operations_for_each_weight_and_token_and_those_of_attention():
    """32 samples of 4096 tokens of an 8B model: 6.3e15 operations, of which attention is a few per cent."""
    shape = ModelShape.of(LLAMA_8B)
    assert shape is not None
    tokens = 32 * 4096
    seconds = seconds_per_step(shape, policy(), flops=1e15)
    matrices = 6 * (shape.parameters - 128256 * 4096) * tokens / 1e15
    assert matrices < seconds < 1.1 * matrices
