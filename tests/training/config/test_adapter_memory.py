"""What adapters save, in bytes that a training really holds, beside the estimate of them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.distributed.tensor import DTensor

from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.config import load_config
from skills_pipe.training.config.estimate import ModelShape, estimate_memory
from skills_pipe.training.data.batches import split_batch
from skills_pipe.training.distributed import World
from tests.training.backends.scenario import BATCH, PACKED, dataset
from tests.training.tiny import tiny_model

LORA = "policy.dtensor_cfg.lora_cfg"
KINDS = {
    "lora": [f"{LORA}.dim=4"],
    "dora": [f"{LORA}.dim=4", f"{LORA}.use_dora=true"],
    "some layers": [f"{LORA}.dim=2", f"{LORA}.match_all_linear=false", f"{LORA}.target_modules=[q_proj, linear_fc2]"],
}
ALONE = World(rank=0, size=1, device=torch.device("cpu"))


def policy(*overrides):
    needed = ["++policy.model_name=m", "++data.train_data_path=d.jsonl", "++sft.max_num_steps=1"]
    return load_config(None, [*needed, *overrides]).policy


def held(settings, architecture, world=ALONE):
    """Bytes of weights, gradients and states of the optimizer in a step, as torch has them on this rank."""
    made = FsdpSettings.of(settings, ranks=world.size)
    here = replace(world, same_rows=made.layout.same_rows)
    backend = FsdpBackend(tiny_model(architecture), made, here)
    model, optimizer = backend.trainee.model, backend.trainee.optimizer
    gradients = []
    optimizer.register_step_pre_hook(
        lambda *_: gradients.append(sum(size(each.grad) for each in model.parameters() if each.grad is not None))
    )
    batch = split_batch(dataset(), range(BATCH), PACKED, here.data_rank, here.data_size)
    backend.train_step(batch.microbatches, targets=batch.global_targets)
    moments = [size(state[name]) for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    return sum(map(size, model.parameters())), gradients[0], sum(moments)


def size(tensor):
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes


def shared(world, *, kind, sizes):
    """As :func:`held`, on ranks that share layers."""
    overrides = [f"policy.{name}_parallel_size={value}" for name, value in sizes.items()]
    settings = policy(f"{LORA}.enabled=true", *KINDS[kind], "policy.precision=float32", *overrides)
    return held(settings, "llama", world)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["llama"])
def test_adapters_hold_what_is_estimated_and_a_fraction_of_all_weights(architecture, kind, precision):
    all_weights = policy(f"policy.precision={precision}")
    adapters = policy(f"policy.precision={precision}", f"{LORA}.enabled=true", *KINDS[kind])
    shape = ModelShape.of(json.loads(tiny_model(architecture).config.to_json_string()))
    estimated = estimate_memory(shape, adapters, ranks=1)

    found, whole = held(adapters, architecture), held(all_weights, architecture)

    assert found == (estimated.weights, estimated.gradients, estimated.optimizer)
    weights, *rest = (ours / theirs for ours, theirs in zip(found, whole, strict=True))
    # The base is held once, in the type that computes; what is as large as the adapters is all that is left besides.
    assert weights < (1.3 if precision == "float32" else 0.8)
    assert max(rest) < 0.3
    assert found[2] == 2 * found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_that_share_layers_hold_what_is_estimated(two_ranks, kind):
    settings = policy(f"{LORA}.enabled=true", *KINDS[kind], "policy.tensor_model_parallel_size=2")
    shape = ModelShape.of(json.loads(tiny_model("llama").config.to_json_string()))
    estimated, apart = (
        estimate_memory(shape, each, ranks=2) for each in (settings, policy(f"{LORA}.enabled=true", *KINDS[kind]))
    )

    for _, gradients, optimizer in two_ranks(shared, kind=kind, sizes={"tensor_model": 2}):
        assert (gradients, optimizer) == (estimated.gradients, estimated.optimizer)
    assert estimated.optimizer > 1.2 * apart.optimizer, "half of the matrices are whole on each"
