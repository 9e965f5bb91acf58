"""What ranks that share the experts of a mixture hold, estimated beside what they really hold."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor

from skills_pipe.training.backends.fsdp.backend import FsdpBackend, FsdpSettings
from skills_pipe.training.config import load_config
from skills_pipe.training.config.estimate import Conditions, ModelShape, activation_bytes, estimate_memory
from skills_pipe.training.data.batches import BatchSettings, split_batch
from skills_pipe.training.distributed import World
from tests.training.backends.layouts import MIXTURES
from tests.training.backends.scenario import BATCH, dataset
from tests.training.tiny import tiny_model

ROWS = BatchSettings(capacity=61)
"""Several microbatches of each rank."""


def policy(experts: int, **changes: Any) -> Any:
    needed = ["++policy.model_name=m", "++data.train_data_path=d.jsonl", "++sft.max_num_steps=1"]
    sizes = [f"++policy.expert_model_parallel_size={experts}", f"++policy.train_global_batch_size={BATCH}"]
    made = load_config(None, [*needed, *sizes, "++policy.precision=float32"]).policy
    return replace(made, dtensor_cfg=replace(made.dtensor_cfg, **changes))


def held(world: World, *, family: str, experts: int, at_once: bool) -> dict[str, Any]:
    """Bytes of weights and states of the optimizer on this rank after a step, and the most of gradients in it."""
    settings = FsdpSettings.of(policy(experts, defer_fsdp_grad_sync=not at_once), ranks=world.size)
    backend = FsdpBackend(tiny_model(family, **MIXTURES[family]), settings, world)
    optimizer, model = backend.trainee.optimizer, backend.trainee.model
    gradients = []
    optimizer.register_step_pre_hook(lambda *_: gradients.append(sum(local(each.grad) for each in model.parameters())))
    batch = split_batch(dataset(), range(BATCH), ROWS, world.data_rank, world.data_size)
    backend.train_step(batch.microbatches, targets=batch.global_weight)
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    return {
        "weights": sum(local(each) for each in model.parameters()),
        "gradients": gradients[0],
        "optimizer": sum(local(each) for each in moments),
    }


def local(tensor: torch.Tensor) -> int:
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes


def shape_of(family: str) -> ModelShape:
    shape = ModelShape.of(json.loads(tiny_model(family, **MIXTURES[family]).config.to_json_string()))
    assert shape is not None
    return shape


@pytest.mark.parametrize("experts", [1, 2])
@pytest.mark.parametrize("family", MIXTURES)
def test_weights_gradients_and_optimizer_of_two_ranks_are_exact(two_ranks, family, experts):
    estimated = estimate_memory(shape_of(family), policy(experts, defer_fsdp_grad_sync=False), ranks=2)
    assert estimated is not None

    found = two_ranks(held, family=family, experts=experts, at_once=True)

    for name in ("weights", "gradients", "optimizer"):
        assert sum(rank[name] for rank in found) == pytest.approx(2 * getattr(estimated, name), abs=8), name
    # The control: a rank alone holds twice as much.
    alone = estimate_memory(shape_of(family), policy(1), ranks=1)
    assert alone is not None and sum(rank["weights"] for rank in found) < 0.51 * 2 * alone.weights


@pytest.mark.parametrize("family", MIXTURES)
def test_gradients_that_are_whole_are_of_the_experts_that_are_here(family):
    shape = shape_of(family)
    apart, shared = (estimate_memory(shape, policy(experts), ranks=4) for experts in (1, 4))
    assert apart is not None and shared is not None
    assert apart.gradients == 4 * shape.parameters
    elsewhere = len(shape.mixtures) * shape.expert_parameters * 3 // 4
    assert apart.gradients - shared.gradients == 4 * elsewhere
    assert shared.compute < apart.compute
    # What travels to the experts of other ranks and comes back is kept once more.
    more = activation_bytes(shape, 64, width=2, conditions=Conditions(shared_experts=True))
    assert shape.experts is not None
    travelled = len(shape.mixtures) * 64 * shape.experts.chosen * shape.hidden * 2
    assert more - activation_bytes(shape, 64, width=2) == travelled
