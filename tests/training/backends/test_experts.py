"""Ranks that share the experts of a mixture: two steps are the same arithmetic as in one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from transformers import PreTrainedModel

from skills_pipe.errors import ConfigError
from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.expert_parallel import dispatch
from skills_pipe.training.backends.fsdp.expert_parallel.dispatch import ExpertGroup
from skills_pipe.training.backends.fsdp.expert_parallel.layer import EXPERTS, SharedExperts, share_experts
from skills_pipe.training.config.parallel import EXPERT_PARALLEL_FAMILIES, Layout
from skills_pipe.training.distributed import World
from tests.training.backends.layouts import MIXTURES, differences, settings, two_steps
from tests.training.backends.scenario import whole
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
}


@pytest.fixture(scope="module")
def alone():
    """What one process finds, by family."""
    return {family: two_steps(ALONE, family=family) for family in MIXTURES}


@pytest.mark.parametrize("layout", [*LAYOUTS][:2])
@pytest.mark.parametrize("family", MIXTURES)
def test_two_steps_on_two_ranks_are_those_of_one_process(two_ranks, alone, family, layout):
    check(two_ranks(two_steps, family=family, layout=LAYOUTS[layout]), alone[family])


@pytest.mark.slow
@pytest.mark.parametrize("layout", [*LAYOUTS][2:])
@pytest.mark.parametrize("family", MIXTURES)
def test_two_steps_are_those_of_one_process(request, alone, family, layout):
    ranks = request.getfixturevalue("two_ranks" if LAYOUTS[layout].ranks == 2 else "four_ranks")
    check(ranks(two_steps, family=family, layout=LAYOUTS[layout]), alone[family])


def check(found: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    wrong = {name: value for name, value in differences(found[0], expected).items() if value > LIMIT}
    assert not wrong
    assert any("experts.gate_up_proj" in name for name in found[0]["gradients"])
    assert any(name.endswith(("mlp.gate.weight", "mlp.router.weight")) for name in found[0]["gradients"])
    assert all(one["losses"] == found[0]["losses"] and one["norms"] == found[0]["norms"] for one in found)


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


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        (not_put_back, "losses and norms"),
        (gradients_of_others_kept, "experts.down_proj"),
        (experts_of_the_neighbour, "losses and norms"),
    ],
)
def test_the_comparison_sees(two_ranks, alone, fault, where):
    found = two_ranks(fault, family="qwen3_moe", layout=LAYOUTS["ep2"])[0]

    assert any(where in name for name, value in differences(found, alone["qwen3_moe"]).items() if value > 1e-4)


def changed(world: World, *, layout: Layout | None, changes: dict[str, Any]) -> dict[str, Any]:
    return two_steps(world, family="qwen3_moe", layout=layout, changes=changes)


@pytest.mark.parametrize("granularity", ["full", "selective"])
def test_recomputed_activations_and_gradients_exchanged_each_time_change_nothing(two_ranks, alone, granularity):
    changes = {"activation_checkpointing": True, "recompute_granularity": granularity, "defer_grad_sync": False}
    found = two_ranks(changed, layout=LAYOUTS["ep2"], changes=changes)

    check(found, alone["qwen3_moe"])


def test_half_precision_is_close(two_ranks):
    half = {"dtype": torch.bfloat16}
    relative = differences(
        two_ranks(changed, layout=LAYOUTS["ep2"], changes=half)[0], changed(ALONE, layout=None, changes=half)
    )

    assert relative["losses and norms"] < 1e-2
    assert max(relative.values()) < 0.2, "experts of single tokens change places where scores are nearly equal"


CHOICES = {
    "mixed": [[0, 3], [5, 1], [2, 7], [4, 6], [7, 0], [1, 2]],
    "all for one expert": [[0, 1]] * 6,
    "all for the last rank": [[6, 7], [7, 6], [6, 7], [6, 7], [7, 6], [7, 6]],
    "none leaves its rank": [[0, 1], [1, 2], [3, 0], [4, 5], [6, 7], [7, 5]],
}
"""The experts of three tokens of the first rank, then of three of the second, out of eight."""


def mixture() -> PreTrainedModel:
    return tiny_model("qwen3_moe", **MIXTURES["qwen3_moe"])


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of six tokens, and the weights of their two experts."""
    generator = torch.Generator().manual_seed(4)
    return torch.randn(6, 32, generator=generator), torch.rand(6, 2, generator=generator)


def computed(experts: torch.nn.Module, tokens: slice, chosen: list[list[int]]) -> dict[str, torch.Tensor]:
    """What experts make of tokens, and gradients of the sum of its squares."""
    hidden, weights = (value[tokens].clone().requires_grad_() for value in inputs())
    output = experts(hidden, torch.tensor(chosen)[tokens], weights)
    output.square().sum().backward()
    gradients = {name: whole(parameter.grad) for name, parameter in experts.named_parameters()}
    return {"output": output.detach(), "hidden": hidden.grad, "weights": weights.grad, **gradients}


def shared(world: World, *, chosen: list[list[int]]) -> dict[str, torch.Tensor]:
    model = mixture()
    share_experts(model, ExpertGroup(mesh=init_device_mesh("cpu", (world.size,))))
    each = 6 // world.size
    return computed(model.model.layers[0].mlp.experts, slice(world.rank * each, (world.rank + 1) * each), chosen)


@pytest.mark.parametrize("choice", CHOICES)
def test_tokens_find_their_experts_wherever_they_are(two_ranks, choice):
    first, second = two_ranks(shared, chosen=CHOICES[choice])
    expected = computed(mixture().model.layers[0].mlp.experts, slice(0, 6), CHOICES[choice])

    for name in ("output", "hidden", "weights"):
        torch.testing.assert_close(torch.cat([first[name], second[name]]), expected[name])
    for name in ("gate_up_proj", "down_proj"):
        torch.testing.assert_close(first[name], expected[name])
        torch.testing.assert_close(second[name], expected[name])


def placed(world: World, *, layout: Layout) -> dict[str, Any]:
    model = FsdpBackend(mixture(), settings(layout=layout), world).trainee.model
    experts = [parameter for name, parameter in model.named_parameters() if ".experts." in name]
    return {
        "modules": sum(isinstance(module, SharedExperts) for module in model.modules()),
        "here": sum(parameter.to_local().numel() for parameter in experts),
        "all": sum(parameter.numel() for parameter in experts),
    }


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "copies"), [("ep4", 1), ("dp4, ep2", 1), ("replicate2 x shard2, ep2", 2)])
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
