"""Averages, adapters, two optimizers, layouts and saves in the background at once: one process gets all of it back."""

from __future__ import annotations

import pytest
import torch

from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.distributed import World
from tests.training.checkpoint.runs import new_manager
from tests.training.checkpoint.together import backend_of, saved, state_of

ALONE = World(rank=0, size=1, device=torch.device("cpu"))

CASES = {
    "adapters": (Layout(shard=2), True, False),
    "shared layers": (Layout(tensor=2, sequence_parallel=True), False, False),
    "Muon and shared layers": (Layout(tensor=2), False, True),
    "adapters in copies": (Layout(replicate=2, shard=2), True, False),
    "Muon in copies of shared layers": (Layout(replicate=2, tensor=2), False, True),
    "Muon in shards of shared layers": (Layout(shard=2, tensor=2), False, True),
}


SLOW = [pytest.param(case, marks=pytest.mark.slow) for case in CASES if CASES[case][0].ranks > 2]


@pytest.mark.parametrize("case", [*(case for case in CASES if CASES[case][0].ranks == 2), *SLOW])
def test_one_process_goes_on_from_what_ranks_saved_while_they_trained(request, tmp_path, case):
    layout, adapters, muon = CASES[case]
    ranks = request.getfixturevalue("two_ranks" if layout.ranks == 2 else "four_ranks")
    expected = ranks(saved, folder=str(tmp_path), layout=layout, adapters=adapters, muon=muon)[0]

    alone = backend_of(ALONE, layout=None, adapters=adapters, muon=muon, seed=5)
    before = {name: value.clone() for name, value in alone.trainee.model.state_dict().items()}
    new_manager(tmp_path).resume(alone.trainee)
    found = state_of(alone)

    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []
    # Something was restored at all, and the average is not the weights.
    trained = [name for name in before if name in expected]
    assert trained and not any(torch.equal(before[name], expected[name]) for name in trained)
    assert not any(torch.equal(expected[name], expected[f"average of {name}"]) for name in trained)
