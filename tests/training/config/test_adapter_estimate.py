"""What adapters take and save, estimated beside what torch really has."""

from __future__ import annotations

import pytest
import torch

from skills_pipe.training.config.adapters import adapter_spec
from skills_pipe.training.config.estimate import (
    ModelShape,
    adapter_parameters,
    estimate_memory,
    operations_per_step,
    seconds_per_step,
)
from skills_pipe.training.models.flops import ModelFlops
from skills_pipe.training.models.lora import freeze_but_adapters
from skills_pipe.training.optimizers.build import build_optimizer
from tests.training.config.test_estimate import LLAMA_8B, SIZES, TOKENS, kept_bytes, policy, shape_of
from tests.training.tiny import tiny_model

LORA = "++policy.dtensor_cfg.lora_cfg"
KINDS = {
    "all": [],
    "dora": [f"{LORA}.use_dora=true"],
    "some": [f"{LORA}.match_all_linear=false", f"{LORA}.target_modules=[linear_qkv, '*.1.self_attn.o_proj']"],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3_text", "phi3", "qwen3_moe", "gpt_oss"])
def test_weights_gradients_and_optimizer_are_exact(architecture, kind):
    settings = policy(f"{LORA}.enabled=true", *KINDS[kind])
    model = tiny_model(architecture)
    shape = shape_of(model)
    freeze_but_adapters(model, adapter_spec(settings), torch.bfloat16)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer = build_optimizer(model.parameters(), settings.optimizer)
    optimizer.step()

    needed = estimate_memory(shape, settings, ranks=1)

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert adapter_parameters(shape, settings) == sum(parameter.numel() for parameter in trained)
    assert needed.weights == sum(parameter.nbytes for parameter in model.parameters())
    assert needed.gradients == sum(parameter.nbytes for parameter in trained)
    states = [state[name].nbytes for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert needed.optimizer == sum(states)
    length, batch = settings.max_total_sequence_length, settings.train_global_batch_size
    counted = ModelFlops.of(model).of_step([length] * batch, batch * length)
    assert operations_per_step(shape, settings) == pytest.approx(counted, rel=1e-12)


def test_activations_are_not_less_than_autograd_keeps():
    sizes = ["++policy.precision=float32", f"++policy.max_total_sequence_length={TOKENS}"]
    settings = policy(f"{LORA}.enabled=true", f"{LORA}.dim=4", *sizes)
    model = tiny_model("llama", **SIZES, head_dim=16)
    shape = shape_of(model)
    freeze_but_adapters(model, adapter_spec(settings), torch.float32)
    estimate = estimate_memory(shape, settings, ranks=1).activations
    measured = kept_bytes(model.train(), TOKENS)
    assert measured <= estimate <= 1.5 * measured


def test_an_8b_model_fits_one_gpu_with_adapters_alone():
    shape = ModelShape.of(LLAMA_8B)
    one = ["++policy.dtensor_cfg.activation_checkpointing=true"]
    all_weights = estimate_memory(shape, policy(*one), ranks=1)
    adapters = estimate_memory(shape, policy(*one, f"{LORA}.enabled=true"), ranks=1)
    assert all_weights.total / 2**30 > 100
    assert adapters.total / 2**30 < 30
    assert adapters.optimizer * 100 < all_weights.optimizer


def test_a_step_is_a_third_shorter():
    shape = ModelShape.of(LLAMA_8B)
    both = [seconds_per_step(shape, policy(*extra), flops=1e15) for extra in ([], [f"{LORA}.enabled=true"])]
    assert both[1] / both[0] == pytest.approx(0.7, abs=0.04)
