"""Options that commands share: what Python and the terminal may give for them."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.options.declaration import build
from skills_pipe.pipeline.options.groups import JobOptions, read_mounts, read_run_after, resources
from skills_pipe.pipeline.plan import Mount

CLUSTER = ClusterConfig(
    name="c", job_dir="/j", partition="gpu", cpu_partition="cpu", time_limits={"gpu": 60, "cpu": 90}
)
MOUNTS = (Mount(source="/a", target="/x"), Mount(source="/b", target="/y", read_only=True))


@dataclass(frozen=True)
class Finished:
    run_dir: Path


@pytest.mark.parametrize(
    "given", ["/a:/x,/b:/y:ro", ["/a:/x", "/b:/y:ro"], ("/a:/x,/b:/y:ro",), {"/a": "/x", "/b": "/y:ro"}]
)
def test_mounts_are_a_text_a_list_or_a_dictionary(given):
    assert read_mounts(given) == MOUNTS


@pytest.mark.parametrize("given", ["e", ["e"], ("e",)])
def test_experiments_to_wait_for_are_one_or_several(given):
    assert read_run_after(given) == ("e",)


def test_names_and_submissions_can_be_mixed():
    assert read_run_after(["a, b", Finished(Path("/j/run-1"))]) == ("a", "b", "/j/run-1")
    with pytest.raises(OptionError, match="neither the name of an experiment nor a submission"):
        read_run_after(3)


@pytest.mark.parametrize(
    ("changes", "num_gpus", "aside", "partition", "exclusive"),
    [
        ({}, 8, False, "gpu", False),
        ({}, 0, False, "cpu", False),
        ({"partition": "mine", "exclusive": True}, 8, False, "mine", True),
        ({"partition": "mine", "exclusive": True}, 0, False, "mine", True),
        # Beside training the flags are those of the training.
        ({"partition": "mine", "exclusive": True}, 0, True, "cpu", False),
    ],
)
def test_each_job_goes_to_the_partition_that_suits_it(changes, num_gpus, aside, partition, exclusive):
    asked = resources(build(JobOptions, changes), CLUSTER, num_gpus=num_gpus, aside=aside)
    assert (asked.partition, asked.exclusive) == (partition, exclusive)


def test_time_limits_are_those_of_the_partition():
    assert resources(build(JobOptions, {}), CLUSTER, num_gpus=1).time_limit == "0-00:01:00"
    assert resources(build(JobOptions, {"partition": "other"}), CLUSTER, num_gpus=1).time_limit is None


def test_the_least_time_is_checked():
    assert build(JobOptions, {"time_min": "90"}).time_min == "0-01:30:00"
    with pytest.raises(OptionError, match="--time_min"):
        build(JobOptions, {"time_min": "soon"})
