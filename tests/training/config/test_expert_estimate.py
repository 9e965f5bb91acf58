"""What ranks that share the experts of a mixture hold, estimated beside what they really hold."""

from __future__ import annotations

import json

import pytest

from skills_pipe.training.config.estimate import Conditions, ModelShape, activation_bytes, estimate_memory
from tests.training.backends.layouts import MIXTURES
from tests.training.config.held import held, policy
from tests.training.tiny import tiny_model


def shape_of(family: str) -> ModelShape:
    shape = ModelShape.of(json.loads(tiny_model(family, **MIXTURES[family]).config.to_json_string()))
    assert shape is not None
    return shape


@pytest.mark.parametrize("experts", [1, 2])
@pytest.mark.parametrize("family", MIXTURES)
def test_weights_gradients_and_optimizer_of_two_ranks_are_exact(two_ranks, family, experts):
    sizes = {"expert_parallel_size": experts, "defer_fsdp_grad_sync": False}
    estimated = estimate_memory(shape_of(family), policy(**sizes), ranks=2)
    assert estimated is not None

    found = two_ranks(held, family=family, sizes=sizes)

    for name in ("weights", "gradients", "optimizer"):
        assert sum(rank[name] for rank in found) == pytest.approx(2 * getattr(estimated, name), abs=8), name
    # The control: a rank alone holds twice as much.
    alone = estimate_memory(shape_of(family), policy(), ranks=1)
    assert alone is not None and sum(rank["weights"] for rank in found) < 0.51 * 2 * alone.weights


@pytest.mark.parametrize("family", MIXTURES)
def test_gradients_that_are_whole_are_of_the_experts_that_are_here(family):
    shape = shape_of(family)
    apart, shared = (estimate_memory(shape, policy(expert_parallel_size=experts), ranks=4) for experts in (1, 4))
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
