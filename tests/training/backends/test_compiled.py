"""Compiled layers in the backend: what one process finds without compiling, on every layout that is allowed."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.distributed import World
from tests.training.backends.layouts import differences, two_steps
from tests.training.exhaustive import mostly_exhaustive

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
LIMIT = 2e-6
"""Rounding of fp32; the documented bound is 1e-5."""


def compiled(world: World, *, family: str = "llama", **arguments) -> dict:
    """Two steps by compiled layers, and how many graphs that took."""
    counters.clear()
    changes = {"compile": True, **arguments.pop("changes", {})}
    found = two_steps(world, family=family, changes=changes, **arguments)
    return found | {"graphs": counters["stats"]["unique_graphs"]}


def wrong(found: dict, expected: dict) -> dict[str, float]:
    return {name: value for name, value in differences(found, expected).items() if not value <= LIMIT}


@pytest.fixture(scope="module")
def alone():
    """What one process finds without compiling."""
    return two_steps(ALONE, family="llama")


@pytest.mark.slow
@pytest.mark.parametrize("layout", mostly_exhaustive([Layout(shard=2), Layout(context=2)], [Layout(shard=2)]), ids=str)
def test_two_ranks_find_what_one_process_does_without_compiling(two_ranks, alone, layout):
    found = two_ranks(compiled, layout=layout)

    assert wrong(found[0], alone) == {}
    assert [each["losses"] for each in found] == [found[0]["losses"]] * 2
    # Four for training and four for validation, over microbatches of every length.
    assert [each["graphs"] for each in found] == [8, 8]


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("layout", [Layout(replicate=2, shard=2), Layout(shard=2, context=2)], ids=str)
def test_four_ranks_find_it_too(four_ranks, alone, layout):
    assert wrong(four_ranks(compiled, layout=layout)[0], alone) == {}


@pytest.mark.slow
def test_recomputed_layers_stay_recomputed_under_fsdp(two_ranks, alone):
    changes = {"activation_checkpointing": True, "defer_grad_sync": False}
    found = two_ranks(compiled, changes=changes)[0]

    assert wrong(found, alone) == {}
    # What is recomputed in the backward pass may need some of its own, but not one for each length.
    assert 8 <= found["graphs"] <= 12


@pytest.mark.slow
@pytest.mark.exhaustive
def test_one_process_in_half_precision_is_close():
    half = {"dtype": torch.bfloat16}
    found, expected = compiled(ALONE, changes=half), two_steps(ALONE, family="llama", changes=half)

    relative = differences(found, expected)
    assert 0 < relative["losses and norms"] < 2e-2
    assert max(relative.values()) < 0.1


def test_gradients_clipped_a_little_otherwise_would_be_noticed(alone):
    other = two_steps(ALONE, family="llama", changes={"max_grad_norm": 0.2501})

    assert wrong(other, alone) != {}
