"""Ranks that fail while a checkpoint is written in the background: the checkpoint becomes whole, or never appears."""

from __future__ import annotations

import threading
from pathlib import Path

import torch.distributed as dist

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.training.checkpoint import ranks, save
from skills_pipe.training.checkpoint.manager import CheckpointManager
from skills_pipe.training.distributed import World
from tests.training.checkpoint.runs import RUN, info_at, position_at, train
from tests.training.checkpoint.sharded import sharded_trainee

WHOLE = {
    f"{part}_{rank}{end}" for rank in (0, 1) for part, end in (("rng/rank", ".pt"), ("policy/weights/_", "_0.distcp"))
}


def failing(world: World, *, folder: str, settle: bool) -> list[str]:
    """A training that fails after the files of its save are written and before they are hashed; the files of the step.

    Args:
        world: of the ranks.
        folder: of the checkpoints.
        settle: wait for the save before the process group goes, as a training does.
    """
    reached, gate, hash_files = threading.Event(), threading.Event(), save._hash_own_files

    def waiting(temporary: Path) -> object:
        reached.set()
        assert gate.wait(60)
        return hash_files(temporary)

    trainee = sharded_trainee(seed=0, tied=False)
    train(trainee, 1)
    manager = CheckpointManager(Path(folder), run=RUN, in_background=True)
    manager.start()
    save._hash_own_files = waiting
    try:
        manager.save(trainee, info_at(1), position_at(1))
        assert reached.wait(60)
        if settle:
            gate.set()
            manager.settle()
        world.barrier()
        dist.destroy_process_group()
        gate.set()
        # The thread ends in either case.
        manager.settle()
    finally:
        save._hash_own_files = hash_files
        come_back(world)
    world.barrier()
    step = Path(folder, "step_1")
    return sorted(manifests.read(step).files) if step.exists() else []


def who_i_am(world: World) -> list[tuple[int, int]]:
    """Rank and number of ranks, as a thread of saving and as any other thread sees them after the failure."""
    group = ranks.Group.new()
    dist.destroy_process_group()
    try:
        found = [(ranks.rank(), ranks.world_size())]
        with ranks.talking_in(group):
            found.append((ranks.rank(), ranks.world_size()))
    finally:
        come_back(world)
    return found


def come_back(world: World) -> None:
    """A new process group: the ranks of the tests live on."""
    store = dist.FileStore("again", world.size)
    dist.init_process_group("gloo", store=store, rank=world.rank, world_size=world.size)


def test_what_was_being_saved_is_whole_after_the_failure(two_ranks, tmp_path):
    one, other = two_ranks(failing, folder=str(tmp_path), settle=True)

    assert one == other
    assert {*one} >= WHOLE
    assert manifests.read(tmp_path / "step_1").facts["world_size"] == 2


def test_a_save_that_outlives_its_process_group_is_whole_or_nothing(two_ranks, tmp_path):
    for files in two_ranks(failing, folder=str(tmp_path), settle=False):
        assert not files or {*files} >= WHOLE


def test_without_a_group_of_its_own_each_rank_would_take_itself_for_the_only_one(two_ranks):
    assert two_ranks(who_i_am) == [[(0, 1), (0, 2)], [(0, 1), (1, 2)]]
