"""Shares of a job's GPUs."""

import os
import subprocess

import pytest

from skills_pipe.pipeline.plan import Command, Job, Member, Resources
from skills_pipe.pipeline.scripts.gpus import gpu_share


def job(main: int, *others: int) -> Job:
    members = tuple(
        Member(name=f"m{index}", command=Command(argv=()), num_gpus=gpus) for index, gpus in enumerate(others)
    )
    total = main + sum(others)
    return Job(
        name="j", stage="s", command=Command(argv=()), resources=Resources(num_gpus=total), log_dir="/l",
        beside=members, main_gpus=main,
    )  # fmt: skip


def seen(made: Job, index: int, visible: str | None) -> str:
    """CUDA_VISIBLE_DEVICES as a member has it, when its job has ``visible``."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    argv = [*gpu_share(made, index), "bash", "-c", 'echo "${CUDA_VISIBLE_DEVICES-unset}"']
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("visible", ["0,1,2,3,4,5", "GPU-a,GPU-b,GPU-c,GPU-d,GPU-e,GPU-f"])
def test_each_has_its_own(visible):
    made = job(2, 1, 3)
    shares = [seen(made, index, visible).split(",") for index in range(3)]
    assert [len(share) for share in shares] == [2, 1, 3]
    assert [gpu for share in shares for gpu in share] == visible.split(",")


def test_one_alone_has_what_its_job_has():
    made = job(0, 4)
    assert gpu_share(made, 0) == gpu_share(made, 1) == ()


def test_where_no_gpus_are_told_nothing_is_set():
    assert [seen(job(1, 1), index, None) for index in range(2)] == ["unset", "unset"]
