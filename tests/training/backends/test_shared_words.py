"""The loss where ranks share the vocabulary is that of one output layer, capped or not, in value and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from skills_pipe.training.distributed import World
from skills_pipe.training.models.head import Head
from skills_pipe.training.models.loss import summed_cross_entropy
from skills_pipe.training.models.words import Words
from tests.training.models.test_loss import problem

ROWS, WORDS = 19, 12


def tensors() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hidden, weight, labels = problem(rows=ROWS, vocabulary=WORDS)
    return hidden, weight, labels, torch.linspace(0, 3, ROWS, dtype=torch.float64)


def whole(softcap: float | None) -> dict[str, Tensor]:
    """With all words, by torch's own cross entropy; gradients of twice the loss."""
    hidden, weight, labels, factors = tensors()
    logits = hidden @ weight.T
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    loss = 0.3 * (factors * each).sum()
    found = torch.autograd.grad(2 * loss, (hidden, weight))
    return {"loss": loss.detach(), "hidden": found[0], "weight": found[1]}


def part(world: World, *, softcap: float | None, chunk_rows: int) -> dict[str, Tensor]:
    """With this rank's words."""
    hidden, weight, labels, factors = tensors()
    words = WORDS // world.size
    own = weight.detach()[world.rank * words : (world.rank + 1) * words].clone().requires_grad_()
    head = Head(words=Words(first=world.rank * words, group=dist.group.WORLD), softcap=softcap)
    loss = summed_cross_entropy(
        hidden, own, labels, scale=0.3, factors=factors, head=head, chunk_elements=chunk_rows * words
    )
    found = torch.autograd.grad(2 * loss, (hidden, own))
    return {"loss": loss.detach(), "hidden": found[0], "weight": found[1]}


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Any]:
    """What the layers before and the optimizer get: the sum of the ranks' parts, and their rows."""
    return {
        "loss": parts[0]["loss"],
        "hidden": sum(one["hidden"] for one in parts),
        "weight": torch.cat([one["weight"] for one in parts]),
    }


@pytest.mark.parametrize("chunk_rows", [1, 7, 256])
@pytest.mark.parametrize("softcap", [None, 1.5])
def test_two_ranks_find_what_one_does(two_ranks, softcap, chunk_rows):
    parts = two_ranks(part, softcap=softcap, chunk_rows=chunk_rows)

    assert torch.equal(parts[0]["loss"], parts[1]["loss"])
    torch.testing.assert_close(joined(parts), whole(softcap), rtol=1e-10, atol=1e-12)


def test_the_comparison_sees_a_cap_that_gradients_do_not_go_through(two_ranks):
    expected, found = whole(1.5), joined(two_ranks(without_steepness, softcap=1.5, chunk_rows=7))

    assert found["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-12)
    assert (found["hidden"] - expected["hidden"]).norm() > 0.1 * expected["hidden"].norm()


def without_steepness(world: World, **arguments: Any) -> dict[str, Tensor]:
    right = Head.steepness
    Head.steepness = lambda self, logits: None
    try:
        return part(world, **arguments)
    finally:
        Head.steepness = right
