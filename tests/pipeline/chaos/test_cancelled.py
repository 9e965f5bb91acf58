"""Somebody changes their mind: segments that are cancelled by hand, running or waiting."""

from __future__ import annotations

import pytest

from skills_pipe.pipeline.submit import submit
from tests.pipeline.chaos.scenes import ask, begun, ended, starts, words
from tests.pipeline.programs import training_plan, until

pytestmark = pytest.mark.slurm


def test_scancel_of_the_running_segment_ends_its_chain(cluster, tmp_path):
    """For Slurm it only did not end well; who cancels it means the chain."""
    submission = submit(training_plan(tmp_path, "wait-for-save", "finish", jobs=3), cluster)
    begun(tmp_path, 1)
    ask("scancel", submission.job_ids["sft-0"])
    assert words(ended(submission)) == ["cancelled"] * 4
    assert starts(tmp_path) == 1


def test_scancel_of_a_waiting_segment_ends_the_chain_when_its_turn_has_come(cluster, tmp_path):
    """Also when Slurm has forgotten it by then: a job that ended without a start can only have been cancelled."""
    submission = submit(training_plan(tmp_path, "wait-for-save", "finish", jobs=3), cluster)
    begun(tmp_path, 1)
    ask("scancel", submission.job_ids["sft-1"])
    until(lambda: submission.job_ids["sft-1"] not in ask("squeue", "-h", "-t", "all", "-o", "%i"), "it is forgotten")
    ask("scancel", "--batch", "--signal=USR1", submission.job_ids["sft-0"])
    assert words(ended(submission)) == ["continued", "cancelled", "cancelled", "cancelled"]
    assert starts(tmp_path) == 1
    log = next((tmp_path / "logs").glob("sft-2_*_sbatch.log")).read_text()
    assert "sft-1 never started: it was cancelled" in log


def test_negative_control_a_chain_that_nobody_touched_goes_on_although_slurm_forgets(cluster, tmp_path):
    submission = submit(training_plan(tmp_path, "wait-for-save", "finish", jobs=3), cluster)
    begun(tmp_path, 1)
    ask("scancel", "--batch", "--signal=USR1", submission.job_ids["sft-0"])
    assert words(ended(submission)) == ["continued", "succeeded", "not needed", "succeeded"]
