"""A host without room for a second copy of the state: all ranks wait for their saves instead, and nothing is lost."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.distributed.fsdp import fully_shard

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.training.checkpoint.failures import is_lack_of_memory
from skills_pipe.training.checkpoint.manager import CheckpointManager
from skills_pipe.training.checkpoint.state import Trainee
from skills_pipe.training.distributed import World
from tests.training.checkpoint.runs import RUN, info_at, position_at
from tests.training.ranks.pool import Ranks
from tests.training.tiny import tiny_model

ROOM = 110_000_000
"""Bytes that a rank without memory may still take: too few for the copies, enough for threads that write files."""


def saving(world: World, *, folder: str, lacking: int | None, prepared: bool) -> tuple[list[int], list[str]]:
    """Two saves, the rank ``lacking`` without memory: the steps that were told, and the notices of the first one."""
    model = tiny_model("llama", vocab_size=800_000, tie_word_embeddings=True)
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    trainee = Trainee(model=model, optimizer=optimizer)
    manager = CheckpointManager(Path(folder), run=RUN, in_background=True)
    manager.start()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if world.rank == lacking:
        resource.setrlimit(resource.RLIMIT_AS, (address_space() + ROOM, limits[1]))
    try:
        if prepared:
            manager.poll(trainee)
        told = [*manager.save(trainee, info_at(1), position_at(1))]
        notices = manager.take_notices()
        told += manager.save(trainee, info_at(2), position_at(2), wait=True)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    manager.close()
    return told, notices


def address_space() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize"))
    return int(line.split()[1]) * 1024


@pytest.fixture
def fresh_ranks(tmp_path: Path) -> Iterator[Ranks]:
    """Two processes without a past: what others have freed would be room that the limit does not see."""
    (tmp_path / "ranks").mkdir()
    ranks = Ranks(2, tmp_path / "ranks")
    yield ranks
    ranks.close()


@pytest.mark.parametrize("prepared", [True, False])
def test_a_rank_without_memory_makes_all_ranks_wait_for_their_saves(fresh_ranks, tmp_path, prepared):
    results = fresh_ranks(saving, folder=str(tmp_path / "run"), lacking=1, prepared=prepared)

    assert [told for told, _ in results] == [[1, 2], [1, 2]]
    for _, notices in results:
        (notice,) = notices
        assert "no longer written in the background" in notice
        assert "on rank 1;" in notice
    for path in (tmp_path / "run/step_1", tmp_path / "run/step_2"):
        assert manifests.damage(path, manifests.read(path)) == []


def test_with_the_memory_the_same_saves_are_made_in_the_background(two_ranks, tmp_path):
    """The control of the limit."""
    results = two_ranks(saving, folder=str(tmp_path), lacking=None, prepared=True)
    assert [notices for _, notices in results] == [[], []]


def test_lack_of_memory_is_known_from_other_failures():
    with pytest.raises(RuntimeError) as lack:
        torch.empty(1 << 60)
    assert is_lack_of_memory(lack.value)
    assert is_lack_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as other:
        torch.empty(2).view(3)
    assert not is_lack_of_memory(other.value)
