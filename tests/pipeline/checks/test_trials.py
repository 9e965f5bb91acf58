"""Which headers sbatch tries, before anybody knows what has to be run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from skills_pipe.pipeline.checks.slurm_facts import Trial
from skills_pipe.pipeline.checks.trials import Trials
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, ExecutorKind
from skills_pipe.pipeline.executors.schedule import reduced
from skills_pipe.pipeline.plan import Plan, Resources
from tests.pipeline.programs import job, make, plan_of


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Three jobs, the first two alike."""
    jobs = [job(name, make(tmp_path / name), tmp_path) for name in ("a", "b", "big")]
    jobs[2] = replace(jobs[2], resources=Resources(num_nodes=4))
    return plan_of(*jobs, **{name: tmp_path / name for name in ("a", "b", "big")})


@pytest.fixture
def cluster(tmp_path: Path) -> ClusterConfig:
    return ClusterConfig(
        name="slurm", executor=ExecutorKind.SLURM, job_dir=str(tmp_path), container_runtime=ContainerRuntime.NONE
    )


def test_of_jobs_that_are_alike_one_is_tried(plan, cluster):
    trials = Trials.of(plan, cluster)
    assert list(trials.headers) == ["a", "big"]
    assert "#SBATCH --nodes=4" in trials.headers["big"] and "#SBATCH --nodes=4" not in trials.headers["a"]


def test_what_is_told_of_one_holds_for_those_like_it_that_have_to_be_run(plan, cluster):
    told = {"a": Trial(accepted=False, words="no"), "big": Trial(accepted=True, words="yes")}
    trials = Trials.of(plan, cluster)
    assert trials.of_jobs(plan, told) == told
    assert trials.of_jobs(reduced(plan, {"b"}), told) == {"b": told["a"]}
    assert trials.of_jobs(reduced(plan, {"big"}), told) == {"big": told["big"]}, "what is finished stops nothing"
    assert trials.of_jobs(plan, {}) == {}
