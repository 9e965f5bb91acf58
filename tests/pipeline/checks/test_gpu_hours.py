"""The most that a plan may cost, in a number that a person can read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from skills_pipe.pipeline.checks.gpu_hours import describe
from skills_pipe.pipeline.plan import Resources
from tests.pipeline.programs import job as job_of
from tests.pipeline.programs import shell


def job(tmp_path, limit, *, gpus=8, nodes=1):
    resources = Resources(num_nodes=nodes, num_gpus=gpus, partition="gpu", time_limit=limit)
    return replace(job_of("a", shell("true"), tmp_path), resources=resources)


@pytest.mark.parametrize(
    ("limit", "gpus", "nodes", "shown"),
    [
        ("0-04:00:00", 8, 1, "32"),
        ("0-00:10:00", 8, 4, "5.33"),
        ("0-01:20:00", 8, 1, "10.7"),
        ("0-00:02:00", 2, 1, "0.07"),
        ("4-00:00:00", 8, 100, "76,800"),
    ],
)
def test_hours_are_rounded_for_people(tmp_path, limit, gpus, nodes, shown):
    told = describe([job(tmp_path, limit, gpus=gpus, nodes=nodes)])
    assert told == f"at most {shown} GPU-hours in 1 job with GPUs"


def test_without_a_limit_of_ours_that_of_the_partition_holds(tmp_path):
    assert describe([job(tmp_path, None)]) == "1 job with GPUs, for as long as the partition allows"


def test_without_gpus_there_is_nothing_to_say(tmp_path):
    assert describe([job(tmp_path, None, gpus=0)]) is None
