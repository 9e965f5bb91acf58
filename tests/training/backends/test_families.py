"""Families that no other kind of parallelism is tried for: sharded they are the same arithmetic as in one process."""

from __future__ import annotations

import pytest
import torch

from skills_pipe.training.backends.fsdp import shard
from skills_pipe.training.config.families import ARCHITECTURES
from skills_pipe.training.distributed import World
from tests.training.backends.layouts import FAMILIES, LAYOUTS, agree, differences, two_steps

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
LIMIT = 2e-6
"""Rounding of fp32; the documented bound is 1e-5."""

OTHERS = [family for family in ARCHITECTURES if family not in FAMILIES]
"""Those of :data:`FAMILIES` are tried on every layout."""


@pytest.fixture(scope="module")
def alone():
    """What one process finds, by family."""
    return {family: two_steps(ALONE, family=family) for family in OTHERS}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["dp2", "replicate2 x shard2"])
@pytest.mark.parametrize("family", OTHERS)
def test_two_steps_are_those_of_one_process(request, alone, family, layout):
    sizes = LAYOUTS[layout]
    ranks = request.getfixturevalue("two_ranks" if sizes.ranks == 2 else "four_ranks")

    found = ranks(two_steps, family=family, layout=sizes)

    wrong = {name: value for name, value in differences(found[0], alone[family]).items() if not value <= LIMIT}
    assert not wrong
    assert agree(found)


def averaged(world: World, *, family: str) -> dict:
    """Gradients as FSDP2 sums them up by itself: divided by the number of ranks."""
    right = shard.FSDPModule.set_gradient_divide_factor
    shard.FSDPModule.set_gradient_divide_factor = lambda self, _: right(self, float(world.size))
    try:
        return two_steps(world, family=family, layout=LAYOUTS["dp2"])
    finally:
        shard.FSDPModule.set_gradient_divide_factor = right


@pytest.mark.parametrize("family", ["gpt2", "gpt_oss"])
def test_the_comparison_sees_averaged_gradients(two_ranks, alone, family):
    found = two_ranks(averaged, family=family)[0]

    assert differences(found, alone[family])["losses and norms"] > 0.4


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_recomputed_activations_give_the_same_bits(family):
    kept, recomputed = (
        two_steps(ALONE, family=family, changes={"activation_checkpointing": again}) for again in (False, True)
    )

    assert (recomputed["losses"], recomputed["norms"]) == (kept["losses"], kept["norms"])
    assert all(torch.equal(recomputed["weights"][name], value) for name, value in kept["weights"].items())


@pytest.mark.parametrize("family", [family for family in ARCHITECTURES if family not in ("qwen3_moe", "gpt_oss")])
def test_half_precision_is_close(family):
    """Mixtures are left out: where two experts score nearly the same, rounding chooses another."""
    precise, half = (
        two_steps(ALONE, family=family, changes={"dtype": dtype}) for dtype in (torch.float32, torch.bfloat16)
    )

    relative = differences(half, precise)
    assert relative["losses and norms"] < 2e-2
    assert max(relative.values()) < 0.1
