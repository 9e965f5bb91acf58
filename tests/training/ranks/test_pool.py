"""Ranks that stay alive: results come in order, failures are told, the dead and the hanging are replaced."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from skills_pipe.training.distributed import World
from tests.training.ranks.pool import RankFailed, Ranks


def described(world: World, *, factor: float) -> tuple[int, int, float, int]:
    return world.rank, world.size, world.sum(factor * world.rank), os.getpid()


def failing(world: World, *, rank: int) -> float:
    if world.rank == rank:
        raise KeyError("the weight")
    return world.sum(1.0)


def dying(world: World) -> float:
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return world.sum(1.0)


def hanging(world: World) -> None:
    if world.rank == 0:
        time.sleep(600)


def leaving(world: World) -> None:
    raise SystemExit(3)


def drawn(world: World) -> float:
    return float(torch.rand(()))


def with_groups_left_open(world: World) -> int:
    dist.new_group(list(range(world.size)))
    return world.size


def with_a_mesh(world: World) -> int:
    """The threads of this process, after a case with a DTensor, which torch keeps much of."""
    mesh = init_device_mesh("cpu", (world.size,))
    distribute_tensor(torch.ones(4), mesh, [Shard(0)]).redistribute(mesh, [Replicate()])
    return len(list(Path("/proc/self/task").iterdir()))


def test_cases_leave_no_threads_behind(two_ranks):
    first = two_ranks(with_a_mesh)
    for _ in range(3):
        assert two_ranks(with_a_mesh) == first


def test_results_come_in_the_order_of_ranks_from_processes_that_stay(two_ranks):
    first = two_ranks(described, factor=2.0)
    second = two_ranks(described, factor=3.0)

    assert [result[:3] for result in first] == [(0, 2, 2.0), (1, 2, 2.0)]
    assert [result[:3] for result in second] == [(0, 2, 3.0), (1, 2, 3.0)]
    assert [result[3] for result in first] == [result[3] for result in second] == two_ranks.pids


def test_what_one_rank_raises_is_told_and_nobody_hangs(two_ranks):
    two_ranks(with_groups_left_open)
    pids = two_ranks.pids
    with pytest.raises(RankFailed, match=r"rank 1 of 2: KeyError: 'the weight'(.|\n)*in failing"):
        two_ranks(failing, rank=1)
    with pytest.raises(RankFailed, match="rank 0 of 2: SystemExit: 3"):
        two_ranks(leaving)
    assert two_ranks.pids == pids
    assert two_ranks(described, factor=1.0)[0][2] == 1.0


def test_every_case_starts_from_the_same_random_numbers(two_ranks):
    assert two_ranks(drawn) == two_ranks(drawn)


@pytest.mark.slow
def test_a_dead_or_hanging_rank_is_named_and_replaced(tmp_path):
    ranks = Ranks(2, tmp_path, seconds=5.0)
    try:
        with pytest.raises(RankFailed, match="rank 1 of 2: the process died of SIGKILL"):
            ranks(dying)
        assert ranks(described, factor=1.0)[1][2] == 1.0
        with pytest.raises(RankFailed, match=r"rank 0 of 2: no answer(.|\n)*in hanging"):
            ranks(hanging)
        assert ranks(described, factor=1.0)[1][2] == 1.0
    finally:
        ranks.close()
