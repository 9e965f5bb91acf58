"""Random numbers: a state comes back as it was, and every rank has numbers of its own."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from skills_pipe.training.checkpoint import rng


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand((), dtype=torch.float64))


def test_what_was_saved_goes_on_where_it_was(tmp_path):
    rng.reseed(3)
    drawn()
    rng.save(rng.state(), tmp_path / "rank_0.pt")
    expected = drawn()
    rng.reseed(4)
    rng.load(tmp_path / "rank_0.pt")

    assert drawn() == expected


def test_ranks_draw_different_numbers_from_every_generator():
    found = []
    for rank in range(64):
        rng.reseed(42, rank=rank)
        found.append(drawn())

    for numbers in zip(*found, strict=True):
        assert len(set(numbers)) == 64


def test_torch_on_cpus_looks_at_the_low_half_of_a_seed_only():
    """Why the rank may not simply be put above the seed."""
    found = {float(torch.rand((), generator=torch.Generator().manual_seed(42 + (rank << 32)))) for rank in range(4)}

    assert len(found) == 1


@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1])
def test_the_first_rank_has_the_numbers_of_the_seed_alone(seed):
    rng.reseed(seed)
    torch_number = torch.rand(())
    torch.manual_seed(seed)

    assert torch.equal(torch_number, torch.rand(()))
