"""Where logs lie: what Slurm is told of a folder, and the path that it makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import PlanError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.scripts.setting import Setting, log_path, log_patterns
from tests.pipeline.programs import job, plan_of, shell

CLUSTER = ClusterConfig(name="big", executor=ExecutorKind.SLURM, job_dir="/jobs")


def setting(log_dir: str) -> Setting:
    one = replace(job("a", shell("true"), Path("/")), log_dir=log_dir)
    return Setting(job=one, plan=plan_of(one), cluster=CLUSTER, run=Run(Path("/jobs/experiments/exp/run-1")))


def test_slurm_is_told_that_a_percent_sign_in_a_folder_is_one():
    batch, step = log_patterns(setting("/50%/%j"))
    assert (batch, step) == ("/50%%/%%j/a_%j_sbatch.log", "/50%%/%%j/main_a_%j_srun.log")


@given(st.lists(st.sampled_from(["%", "j", "%j", "%%", "x"])).map("".join))
def test_the_log_of_a_job_is_in_the_folder_that_was_asked_for(name):
    _, step = log_patterns(setting(f"/logs/{name}"))
    assert log_path(step, "17") == f"/logs/{name}/main_a_17_srun.log"


def test_negative_control_without_its_escape_slurm_would_take_it_elsewhere():
    assert log_path("/logs/%j/main_a_%j_srun.log", "17") == "/logs/17/main_a_17_srun.log"


def test_a_folder_with_a_backslash_is_refused():
    """With one Slurm puts no id into the names of logs."""
    with pytest.raises(PlanError, match=r"/a\\b has a backslash, and Slurm puts no logs there \(--log_dir\)"):
        log_patterns(setting("/a\\b"))
