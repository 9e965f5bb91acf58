"""What ranks that share layers hold and keep, estimated beside what they really do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from transformers import AutoConfig, AutoModelForCausalLM

from skills_pipe.training.backends.fsdp.expert_parallel.dispatch import ExpertGroup
from skills_pipe.training.backends.fsdp.expert_parallel.layer import EXPERTS, share_experts
from skills_pipe.training.backends.fsdp.tensor_parallel.collectives import TensorGroup
from skills_pipe.training.backends.fsdp.tensor_parallel.plan import share_layers
from skills_pipe.training.config.estimate import activation_bytes, estimate_memory
from skills_pipe.training.distributed import World
from tests.training.config.held import SHAPES, held, policy
from tests.training.config.test_estimate import ON_CPU, OWN, SIZES, TOKENS, kept_bytes, shape_of
from tests.training.tiny import tiny_model


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "phi3", "qwen3_moe", "gpt_oss"])
def test_weights_gradients_and_optimizer_of_two_ranks_are_exact(two_ranks, family):
    shape = shape_of(tiny_model(family, **SHAPES[family]))
    sizes = {"tensor_parallel_size": 2, "defer_fsdp_grad_sync": False}
    estimated = estimate_memory(shape, policy(**sizes), ranks=2)
    assert estimated is not None

    found = two_ranks(held, family=family, sizes=sizes)

    for name in ("weights", "gradients", "optimizer"):
        assert {rank[name] for rank in found} == {getattr(estimated, name)}, name
    # The control: sharded over both ranks norms, too, are there in halves.
    sharded = estimate_memory(shape, policy(), ranks=2)
    assert sharded is not None and sharded.weights < estimated.weights


def kept(world: World, *, family: str, sequence: bool) -> int:
    """Bytes that autograd keeps on this rank."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SIZES, **OWN.get(family, {})})).train()
    tensor = TensorGroup(mesh=init_device_mesh("cpu", (world.size,)), sequence=sequence)
    torch.manual_seed(0)
    share_layers(model, tensor)
    if family in EXPERTS:
        share_experts(model, ExpertGroup(mesh=tensor.mesh, exchange=None, tensor=tensor))
    return kept_bytes(model, TOKENS)


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "phi3", "qwen3_moe"])
def test_activations_are_what_two_ranks_keep_within_a_tenth(two_ranks, family, sequence):
    found = two_ranks(kept, family=family, sequence=sequence)
    shape = shape_of(AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SIZES, **OWN.get(family, {})})))

    def estimate(ranks: int, sequence: bool) -> int:
        conditions = replace(ON_CPU, tensor=ranks, sequence=sequence)
        return activation_bytes(shape.of_rank(ranks), TOKENS, width=4, conditions=conditions)

    measured = sum(found) / 2
    assert estimate(2, sequence) == pytest.approx(measured, rel=0.1)
    assert estimate(1, False) != pytest.approx(measured, rel=0.1)
    assert estimate(2, not sequence) != pytest.approx(measured, rel=0.05)
