"""What ranks that share layers hold and keep, estimated beside what they really do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM

from skills_pipe.training.backends.fsdp.backend import FsdpBackend, FsdpSettings
from skills_pipe.training.backends.fsdp.expert_parallel.dispatch import ExpertGroup
from skills_pipe.training.backends.fsdp.expert_parallel.layer import EXPERTS, share_experts
from skills_pipe.training.backends.fsdp.tensor_parallel.collectives import TensorGroup
from skills_pipe.training.backends.fsdp.tensor_parallel.plan import share_layers
from skills_pipe.training.config import load_config
from skills_pipe.training.config.estimate import activation_bytes, estimate_memory
from skills_pipe.training.data.batches import BatchSettings, split_batch
from skills_pipe.training.distributed import World
from tests.training.backends.layouts import FAMILIES, MIXTURES
from tests.training.backends.scenario import BATCH, dataset
from tests.training.config.test_estimate import ON_CPU, OWN, SIZES, TOKENS, kept_bytes, shape_of
from tests.training.tiny import tiny_model

ROWS = BatchSettings(capacity=61)
SHAPES = {**FAMILIES, **MIXTURES}


def policy(**changes: Any) -> Any:
    needed = ["++policy.model_name=m", "++data.train_data_path=d.jsonl", "++sft.max_num_steps=1"]
    made = load_config(None, [*needed, f"++policy.train_global_batch_size={BATCH}", "++policy.precision=float32"])
    return replace(made.policy, dtensor_cfg=replace(made.policy.dtensor_cfg, **changes))


def held(world: World, *, family: str, sizes: dict[str, Any]) -> dict[str, int]:
    """Bytes of weights, of gradients in a step, and of the states of the optimizer on this rank."""
    settings = FsdpSettings.of(policy(**sizes), ranks=world.size)
    here = replace(world, same_rows=settings.layout.same_rows if settings.layout else 1)
    backend = FsdpBackend(tiny_model(family, **SHAPES[family]), settings, here)
    optimizer, model = backend.trainee.optimizer, backend.trainee.model
    gradients = []
    optimizer.register_step_pre_hook(lambda *_: gradients.append(sum(local(each.grad) for each in model.parameters())))
    batch = split_batch(dataset(), range(BATCH), ROWS, here.data_rank, here.data_size)
    backend.train_step(batch.microbatches, targets=batch.global_weight)
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    return {
        "weights": sum(local(each) for each in model.parameters()),
        "gradients": gradients[0],
        "optimizer": sum(local(each) for each in moments),
    }


def local(tensor: torch.Tensor) -> int:
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes


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
