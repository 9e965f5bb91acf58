from __future__ import annotations

import os
import socket

import pytest

from skills_pipe.training.distributed import join
from tests.training.launch import environment, python, run, run_together, torchrun

REPORT = "tests.training.report_world"


def test_by_hand_the_world_is_this_process(monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_RANK", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    with join() as world:
        assert (world.rank, world.size, world.first) == (0, 1, True)
        assert (world.sum(3.5), world.max(-2.0)) == (3.5, -2.0)
        world.barrier()


@pytest.mark.slow
def test_under_torchrun_ranks_add_up_and_agree():
    ended = run(torchrun(2, REPORT))

    assert ended.returncode == 0, ended.stdout
    assert sorted(line for line in ended.stdout.splitlines() if line.startswith("rank")) == [
        "rank 0 of 2: sum 3.0, max 2.0",
        "rank 1 of 2: sum 3.0, max 2.0",
    ]


@pytest.mark.slow
def test_a_rank_that_fails_shows_why_and_ends_though_the_other_waits_for_it():
    ended = run(torchrun(2, "tests.training.report_failure"))

    assert ended.returncode == 1
    assert "KeyError: 'the weight'" in ended.stdout
    assert "terminate called" not in ended.stdout


@pytest.mark.slow
def test_under_slurm_the_tasks_of_a_step_find_each_other():
    step = {
        # The port where they meet follows from the number of the job: another number than other tests on this machine.
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": socket.gethostname(),
        "SLURM_NTASKS": "2",
        "SLURM_NODEID": "0",
    }
    tasks = [environment(**step, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)) for rank in range(2)]
    ended = run_together(python(REPORT), tasks)

    assert [task.returncode for task in ended] == [0, 0], [task.stdout for task in ended]
    assert [task.stdout.splitlines()[-1] for task in ended] == [
        "rank 0 of 2: sum 3.0, max 2.0",
        "rank 1 of 2: sum 3.0, max 2.0",
    ]
