"""The ``#SBATCH`` lines of a job: each from one setting, and keys of the configuration win over ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.plan import Job, Launch, Plan, Resources
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.scripts.sbatch import render_sbatch
from tests.pipeline.programs import job, plan_of, shell, training_plan

CLUSTER = ClusterConfig(name="big", executor=ExecutorKind.SLURM, job_dir="/lustre/jobs")
RUN = Run(Path("/lustre/jobs/experiments/exp/run-1"))


def header(cluster: ClusterConfig = CLUSTER, *, launch: Launch = Launch.ONCE, **resources: object) -> set[str]:
    """The directives of a job with these resources, without ``#SBATCH --``."""
    one = job("a", shell("true"), Path("/out"))
    one = replace(one, resources=Resources(**resources), command=replace(one.command, launch=launch))
    return directives(one, plan_of(one), cluster)


def directives(one: Job, plan: Plan, cluster: ClusterConfig = CLUSTER) -> set[str]:
    lines = render_sbatch(one, plan, cluster, RUN, "/lustre/jobs/code/0").splitlines()
    return {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH ")}


ALWAYS = {
    "job-name=a",
    "nodes=1",
    "ntasks-per-node=1",
    "output=/out/logs/a_%j_sbatch.log",
    "open-mode=append",
    "requeue",
}


def test_a_job_that_asks_for_nothing_leaves_the_rest_to_the_cluster():
    assert header() == ALWAYS


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"partition": "cpu"}, {"partition=cpu"}),
        ({"qos": "high"}, {"qos=high"}),
        ({"time_limit": "0-04:00:00"}, {"time=0-04:00:00"}),
        ({"time_min": "01:00:00"}, {"time-min=01:00:00"}),
        ({"exclusive": True}, {"exclusive"}),
        ({"num_gpus": 8}, {"gpus-per-node=8"}),
    ],
)
def test_each_resource_is_a_line(resources, expected):
    assert header(**resources) - ALWAYS == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"account": "llm"}, {"account=llm"}),
        ({"mail_type": "FAIL", "mail_user": "me@example.org"}, {"mail-type=FAIL", "mail-user=me@example.org"}),
        ({"sbatch": {"reservation": "spring"}}, {"reservation=spring"}),
        ({"sbatch": {"cpus_per_task": "4", "mem": "0"}}, {"cpus-per-task=4", "mem=0"}),
        ({"sbatch": {"comment": "a b"}}, {"comment='a b'"}),
        ({"sbatch": {"exclusive": "True"}}, {"exclusive"}),
    ],
)
def test_each_key_of_the_configuration_is_a_line(changes, expected):
    assert header(replace(CLUSTER, **changes)) - ALWAYS == expected


def test_keys_of_the_configuration_win_over_ours_and_take_them_away():
    sbatch = {"requeue": "False", "gpus_per_node": "a100:8", "time": "10:00"}
    lines = header(replace(CLUSTER, sbatch=sbatch), num_gpus=8, time_limit="0-04:00:00")
    assert lines == ALWAYS - {"requeue"} | {"gpus-per-node=a100:8", "time=10:00"}


def test_a_cpu_job_asks_for_no_gpu_and_neither_does_one_where_sites_forbid_it():
    assert not any("gpu" in line for line in header(num_gpus=0, partition="cpu"))
    assert not any("gpu" in line for line in header(replace(CLUSTER, disable_gpus_per_node=True), num_gpus=8))


def test_ranks_are_tasks():
    assert {"nodes=2", "ntasks-per-node=8"} <= header(launch=Launch.PER_GPU, num_nodes=2, num_gpus=8)


def test_the_prefix_is_in_the_name_for_slurm_and_nowhere_else():
    lines = header(replace(CLUSTER, job_name_prefix="llm-"))
    assert "job-name=llm-a" in lines and "output=/out/logs/a_%j_sbatch.log" in lines


def test_only_a_segment_with_a_time_limit_is_told_when_its_time_is_short():
    plan = training_plan(Path("/out"), "finish", jobs=1)
    limited = replace(plan.jobs[0], resources=Resources(time_limit="0-04:00:00"))
    assert "signal=B:USR1@300" in directives(limited, replace(plan, jobs=(limited, plan.jobs[1])))
    assert not any(line.startswith("signal") for line in directives(plan.jobs[0], plan))
    assert not any(line.startswith("signal") for line in header(time_limit="0-04:00:00"))
