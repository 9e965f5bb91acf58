"""Tokens that go to the experts of other ranks come back with what their own experts would have made of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from transformers import PreTrainedModel

from skills_pipe.training.backends.fsdp.expert_parallel import dispatch
from skills_pipe.training.backends.fsdp.expert_parallel.dispatch import ExpertGroup
from skills_pipe.training.backends.fsdp.expert_parallel.layer import share_experts
from skills_pipe.training.backends.fsdp.tensor_parallel.collectives import TensorGroup
from skills_pipe.training.distributed import World
from tests.training.backends.layouts import MIXTURES
from tests.training.backends.scenario import whole
from tests.training.tiny import tiny_model

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


def computed(
    experts: torch.nn.Module,
    tokens: slice,
    chosen: list[list[int]],
    summed: Callable[[torch.Tensor], torch.Tensor] = lambda output: output,
) -> dict[str, torch.Tensor]:
    """What experts make of tokens, and gradients of the sum of its squares."""
    hidden, weights = (value[tokens].clone().requires_grad_() for value in inputs())
    output = summed(experts(hidden, torch.tensor(chosen)[tokens], weights))
    output.square().sum().backward()
    gradients = {name: whole(parameter.grad) for name, parameter in experts.named_parameters()}
    return {"output": output.detach(), "hidden": hidden.grad, "weights": weights.grad, **gradients}


def shared(world: World, *, chosen: list[list[int]]) -> dict[str, torch.Tensor]:
    model = mixture()
    mesh = init_device_mesh("cpu", (world.size,))
    share_experts(model, ExpertGroup(mesh=mesh, exchange=mesh))
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


def of_the_same_tokens(world: World, *, chosen: list[list[int]]) -> dict[str, torch.Tensor]:
    model, tensor = mixture(), TensorGroup(mesh=init_device_mesh("cpu", (world.size,)))
    share_experts(model, ExpertGroup(mesh=tensor.mesh, exchange=None, tensor=tensor))
    experts = model.model.layers[0].mlp.experts
    return computed(experts, slice(0, 6), chosen, lambda output: tensor.leave(output[None])[0])


@pytest.mark.parametrize("choice", CHOICES)
def test_ranks_with_the_same_tokens_share_their_experts(two_ranks, choice):
    first, second = two_ranks(of_the_same_tokens, chosen=CHOICES[choice])
    expected = computed(mixture().model.layers[0].mlp.experts, slice(0, 6), CHOICES[choice])

    for name in ("output", "gate_up_proj", "down_proj"):
        torch.testing.assert_close(first[name], expected[name])
        torch.testing.assert_close(second[name], expected[name])
    for name in ("hidden", "weights"):
        torch.testing.assert_close(first[name] + second[name], expected[name])


def sent_to_the_other_rank(world: World, *, chosen: list[list[int]]) -> dict[str, torch.Tensor]:
    """Experts of one rank are taken for those of the other."""
    right = dispatch.Dispatch.of
    dispatch.Dispatch.of = lambda chosen, experts, group: right((chosen + experts // 2) % experts, experts, group)
    try:
        return shared(world, chosen=chosen)
    finally:
        dispatch.Dispatch.of = right


def test_the_comparison_sees_tokens_that_went_elsewhere(two_ranks):
    first, _ = two_ranks(sent_to_the_other_rank, chosen=CHOICES["mixed"])
    expected = computed(mixture().model.layers[0].mlp.experts, slice(0, 3), CHOICES["mixed"])
    assert torch.dist(first["output"], expected["output"]) > 0.1 * expected["output"].norm()
