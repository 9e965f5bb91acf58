"""Three kinds of parallelism at once, which takes eight ranks: two steps are the same arithmetic as in one process."""

from __future__ import annotations

import pytest
import torch

from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.distributed import World
from tests.training.backends.layouts import MIXTURES, agree, differences, two_steps

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
LIMIT = 2e-6
"""Rounding of fp32; the documented bound is 1e-5."""

LAYOUTS = {
    "dp2 x cp2 x tp2+sp": Layout(shard=2, context=2, tensor=2, sequence_parallel=True),
    "replicate2 x shard2 x tp2+sp": Layout(replicate=2, shard=2, tensor=2, sequence_parallel=True),
    "replicate2 x shard2 x cp2": Layout(replicate=2, shard=2, context=2),
    "replicate2 x cp2 x tp2": Layout(replicate=2, context=2, tensor=2),
    "dp2 x tp4+sp": Layout(shard=2, tensor=4, sequence_parallel=True),
    "dp2 x cp2 x tp2+sp, ep2": Layout(shard=2, context=2, tensor=2, sequence_parallel=True, expert=2),
    "dp2 x cp2 x tp2+sp, ep4": Layout(shard=2, context=2, tensor=2, sequence_parallel=True, expert=4),
    "replicate2 x shard2 x tp2, ep2": Layout(replicate=2, shard=2, tensor=2, expert=2),
}

ONE_OF_EACH_KIND = ("llama", "gemma3_text", "phi3", *MIXTURES)
"""Plain layers, norms of four kinds, fused products, mixtures."""


@pytest.mark.parametrize(
    ("family", "layout"),
    [
        (family, layout)
        for family in ONE_OF_EACH_KIND
        for layout, sizes in LAYOUTS.items()
        if sizes.expert == 1 or family in MIXTURES
    ],
)
def test_two_steps_are_those_of_one_process(eight_ranks, family, layout):
    found = eight_ranks(two_steps, family=family, layout=LAYOUTS[layout])

    wrong = {
        name: value
        for name, value in differences(found[0], two_steps(ALONE, family=family)).items()
        if not value <= LIMIT
    }
    assert not wrong
    assert agree(found)


def test_the_comparison_sees_another_model(eight_ranks):
    other = {"shape": {"rms_norm_eps": 1e-3}}
    found = eight_ranks(two_steps, family="llama", layout=LAYOUTS["dp2 x cp2 x tp2+sp"], **other)
    assert max(differences(found[0], two_steps(ALONE, family="llama")).values()) > 10 * LIMIT
