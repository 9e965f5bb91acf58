"""Ranks that share the experts of a mixture: two steps are the same arithmetic as in one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from skills_pipe.errors import ConfigError
from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.expert_parallel import dispatch, layer
from skills_pipe.training.backends.fsdp.expert_parallel.layer import EXPERTS, SharedExperts
from skills_pipe.training.backends.fsdp.tensor_parallel import layers
from skills_pipe.training.config.parallel import EXPERT_PARALLEL_FAMILIES, Layout
from skills_pipe.training.distributed import World
from tests.training.backends.layouts import MIXTURES, agree, differences, settings, two_steps
from tests.training.tiny import tiny_model

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
LIMIT = 2e-6
"""Rounding of fp32; the documented bound is 1e-5."""

LAYOUTS = {
    "dp2": Layout(shard=2),
    "ep2": Layout(shard=2, expert=2),
    "ep4": Layout(shard=4, expert=4),
    "dp4, ep2": Layout(shard=4, expert=2),
    "replicate2 x shard2, ep2": Layout(replicate=2, shard=2, expert=2),
    "cp2, ep2": Layout(context=2, expert=2),
    "dp2 x cp2, ep4": Layout(shard=2, context=2, expert=4),
    "tp2": Layout(tensor=2),
    "tp2+sp": Layout(tensor=2, sequence_parallel=True),
    "tp4": Layout(tensor=4),
    "dp2 x tp2+sp": Layout(shard=2, tensor=2, sequence_parallel=True),
    "replicate2 x tp2": Layout(replicate=2, tensor=2),
    "cp2 x tp2+sp": Layout(context=2, tensor=2, sequence_parallel=True),
    "dp2 x tp2, ep2": Layout(shard=2, tensor=2, expert=2),
    "dp2 x tp2+sp, ep2": Layout(shard=2, tensor=2, sequence_parallel=True, expert=2),
    "cp2 x tp2+sp, ep2": Layout(context=2, tensor=2, sequence_parallel=True, expert=2),
}

QUICK = ("dp2", "ep2", "tp2+sp")
"""Tried also where slow tests are left out."""

ALWAYS = {
    "gpt_oss": (
        *("ep4", "replicate2 x shard2, ep2", "dp2 x cp2, ep4", "tp2", "tp4", "dp2 x tp2+sp", "cp2 x tp2+sp"),
        *("dp2 x tp2+sp, ep2", "cp2 x tp2+sp, ep2"),
    ),
    "qwen3_moe": ("dp4, ep2", "dp2 x tp2+sp, ep2", "tp2"),
}
"""What a family is tried on in each run of the suite; Qwen's experts are shared as those of gpt-oss are."""


@pytest.fixture(scope="module")
def alone():
    """What one process finds, by family."""
    return {family: two_steps(ALONE, family=family) for family in MIXTURES}


@pytest.mark.parametrize("layout", QUICK)
@pytest.mark.parametrize("family", MIXTURES)
def test_two_steps_on_two_ranks_are_those_of_one_process(two_ranks, alone, family, layout):
    check(two_ranks(two_steps, family=family, layout=LAYOUTS[layout]), alone[family])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "layout"),
    [
        pytest.param(family, layout, marks=() if layout in ALWAYS[family] else pytest.mark.exhaustive)
        for family in MIXTURES
        for layout in LAYOUTS
        if layout not in QUICK
    ],
)
def test_two_steps_are_those_of_one_process(request, alone, family, layout):
    ranks = request.getfixturevalue("two_ranks" if LAYOUTS[layout].ranks == 2 else "four_ranks")
    check(ranks(two_steps, family=family, layout=LAYOUTS[layout]), alone[family])


def check(found: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    wrong = {name: value for name, value in differences(found[0], expected).items() if not value <= LIMIT}
    assert not wrong
    assert any("experts.gate_up_proj" in name for name in found[0]["gradients"])
    assert any(name.endswith(("mlp.gate.weight", "mlp.router.weight")) for name in found[0]["gradients"])
    assert agree(found)


def not_put_back(world: World, **arguments: Any) -> dict[str, Any]:
    """What experts make stays in the order in which it was sent."""
    right = dispatch.Dispatch.come_back
    dispatch.Dispatch.come_back = lambda self, computed: dispatch._Exchange.apply(
        computed, self.received, self.sent, self.group
    )
    try:
        return two_steps(world, **arguments)
    finally:
        dispatch.Dispatch.come_back = right


def gradients_of_others_kept(world: World, **arguments: Any) -> dict[str, Any]:
    """Gradients do not travel back: those of the tokens that another rank computed are lost."""
    right = dispatch._Exchange.backward

    def silent(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        back, *rest = right(ctx, gradient)
        start = sum(ctx.sent[: world.rank])
        kept = torch.zeros_like(back)
        kept[start : start + ctx.sent[world.rank]] = back[start : start + ctx.sent[world.rank]]
        return kept, *rest

    dispatch._Exchange.backward = staticmethod(silent)
    try:
        return two_steps(world, **arguments)
    finally:
        dispatch._Exchange.backward = right


def experts_of_the_neighbour(world: World, **arguments: Any) -> dict[str, Any]:
    """The experts of a rank are taken for those of the other."""
    right = dispatch.Dispatch.of
    dispatch.Dispatch.of = lambda chosen, experts, group: right((chosen + experts // 2) % experts, experts, group)
    try:
        return two_steps(world, **arguments)
    finally:
        dispatch.Dispatch.of = right


def every_expert_twice(world: World, **arguments: Any) -> dict[str, Any]:
    """Ranks with the same tokens each take all of them to their experts."""
    right = dispatch.ExpertGroup.own
    dispatch.ExpertGroup.own = lambda self, chosen, each: (torch.ones_like(chosen, dtype=torch.bool), chosen % each)
    try:
        return two_steps(world, **arguments)
    finally:
        dispatch.ExpertGroup.own = right


def router_of_one_rank(world: World, **arguments: Any) -> dict[str, Any]:
    """The gradient of what chooses experts taken for the whole, though each rank knows that of its own experts."""
    right = layers.Router.forward
    layers.Router.forward = lambda self, hidden: self._computed(hidden, partial_gradient=False)
    try:
        return two_steps(world, **arguments)
    finally:
        layers.Router.forward = right


def sinks_of_other_heads(world: World, **arguments: Any) -> dict[str, Any]:
    right = layers.own_part
    layers.own_part = lambda parameter, **how: right(parameter, **how).flip(0 if parameter.shape == (12,) else ())
    try:
        return two_steps(world, **arguments)
    finally:
        layers.own_part = right


def no_sum_over_experts(world: World, **arguments: Any) -> dict[str, Any]:
    """What the experts of a rank make, taken for what all do."""
    right = layer.SharedMixture.forward
    layer.SharedMixture.forward = lambda self, hidden: super(layer.SharedMixture, self).forward(hidden)
    try:
        return two_steps(world, **arguments)
    finally:
        layer.SharedMixture.forward = right


@pytest.mark.parametrize(
    ("fault", "family", "layout", "where"),
    [
        (not_put_back, "qwen3_moe", "ep2", "losses and norms"),
        (gradients_of_others_kept, "qwen3_moe", "ep2", "experts.down_proj"),
        (experts_of_the_neighbour, "qwen3_moe", "ep2", "losses and norms"),
        (every_expert_twice, "qwen3_moe", "tp2", "losses and norms"),
        (router_of_one_rank, "gpt_oss", "tp2+sp", "router.weight"),
        (router_of_one_rank, "qwen3_moe", "tp2", "gate.weight"),
        (sinks_of_other_heads, "gpt_oss", "tp2", "losses and norms"),
        (no_sum_over_experts, "gpt_oss", "tp2", "losses and norms"),
    ],
)
def test_the_comparison_sees(two_ranks, alone, fault, family, layout, where):
    found = two_ranks(fault, family=family, layout=LAYOUTS[layout])[0]

    assert any(where in name for name, value in differences(found, alone[family]).items() if value > 1e-4)


@pytest.mark.parametrize(
    ("granularity", "family", "layout"),
    [
        ("full", "qwen3_moe", "ep2"),
        ("selective", "qwen3_moe", "ep2"),
        ("full", "gpt_oss", "tp2+sp"),
        ("selective", "gpt_oss", "tp2+sp"),
    ],
)
def test_recomputed_activations_and_gradients_exchanged_each_time_change_nothing(
    two_ranks, alone, granularity, family, layout
):
    changes = {"activation_checkpointing": True, "recompute_granularity": granularity, "defer_grad_sync": False}
    found = two_ranks(two_steps, family=family, layout=LAYOUTS[layout], changes=changes)

    check(found, alone[family])


@pytest.mark.parametrize(("family", "layout"), [("qwen3_moe", "ep2"), ("qwen3_moe", "tp2+sp"), ("gpt_oss", "tp2+sp")])
def test_half_precision_is_close(two_ranks, family, layout):
    half = {"family": family, "changes": {"dtype": torch.bfloat16}}
    relative = differences(two_ranks(two_steps, layout=LAYOUTS[layout], **half)[0], two_steps(ALONE, **half))

    assert relative["losses and norms"] < 1e-2
    assert max(relative.values()) < 0.2, "experts of single tokens change places where scores are nearly equal"


def placed(world: World, *, layout: Layout) -> dict[str, Any]:
    mixture = tiny_model("qwen3_moe", **MIXTURES["qwen3_moe"])
    model = FsdpBackend(mixture, settings(layout=layout), world).trainee.model
    experts = [parameter for name, parameter in model.named_parameters() if ".experts." in name]
    return {
        "modules": sum(isinstance(module, SharedExperts) for module in model.modules()),
        "here": sum(parameter.to_local().numel() for parameter in experts),
        "all": sum(parameter.numel() for parameter in experts),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "copies"),
    [
        ("ep4", 1),
        ("dp4, ep2", 1),
        ("replicate2 x shard2, ep2", 2),
        ("tp4", 1),
        ("dp2 x tp2+sp", 1),
        ("dp2 x tp2, ep2", 1),
        ("replicate2 x tp2", 2),
    ],
)
def test_each_rank_holds_its_part_of_the_experts(four_ranks, layout, copies):
    for found in four_ranks(placed, layout=LAYOUTS[layout]):
        assert found["modules"] == 2
        assert found["here"] == found["all"] // 4 * copies


def refused(world: World, *, family: str, shape: dict[str, Any]) -> str:
    try:
        FsdpBackend(tiny_model(family, **shape), settings(layout=LAYOUTS["ep2"]), world)
    except ConfigError as error:
        return error.what
    return "accepted"


def test_what_cannot_be_shared_is_refused(two_ranks):
    odd = {**MIXTURES["qwen3_moe"], "num_experts": 5}
    assert set(two_ranks(refused, family="qwen3_moe", shape=odd)) == {
        "the 5 experts of the model cannot be divided over 2 ranks"
    }
    assert set(two_ranks(refused, family="llama", shape={})) == {
        "expert parallelism is proven exact for qwen3_moe, gpt_oss, not for llama"
    }


def test_the_families_that_the_configuration_knows_are_those_with_experts():
    assert set(EXPERT_PARALLEL_FAMILIES) == set(EXPERTS) == set(MIXTURES)
