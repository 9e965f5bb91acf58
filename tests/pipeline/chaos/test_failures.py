"""What breaks by itself: nodes, the controller, time limits, the runs before."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest

from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.plan import Resources
from skills_pipe.pipeline.submit import submit
from tests.pipeline.chaos.scenes import ask, begun, ended, is_signalled, processes_of, starts, words
from tests.pipeline.programs import job, plan_of, shell, training_plan, until

pytestmark = pytest.mark.slurm


@pytest.mark.slow
def test_the_death_of_a_node_requeues_its_job_and_uses_up_no_segment(cluster, slurm_forgetful, tmp_path):
    submission = submit(training_plan(tmp_path, "wait-for-save", "finish", jobs=2), cluster)
    begun(tmp_path, 1)
    (node,) = ask("squeue", "-h", "-j", submission.job_ids["sft-0"], "-o", "%N").split()
    slurm_forgetful.kill_node(node)
    slurm_forgetful.report_down(node)
    assert words(ended(submission)) == ["succeeded", "not needed", "succeeded"]
    assert starts(tmp_path) == 2
    assert statuses_of(submission.run)["sft-0"].restarts == 1


@pytest.mark.slow
def test_a_chain_goes_on_over_the_death_of_the_controller_and_what_it_forgets(cluster, slurm_forgetful, tmp_path):
    """It dies in the middle of a segment; when it is back, it has forgotten all that ended before."""
    submission = submit(training_plan(tmp_path, "step", "wait-for-save", "finish", jobs=4, total=3), cluster)
    begun(tmp_path, 2)
    slurm_forgetful.kill_controller()
    with pytest.raises(Exception, match="squeue gives no answer"):
        submission.states()
    slurm_forgetful.start_controller()
    until(lambda: submission.job_ids["sft-0"] not in ask("squeue", "-h", "-t", "all", "-o", "%i"), "it is forgotten")
    # A controller that is just back answers questions before it reaches its nodes.
    until(lambda: is_signalled("USR1", submission.job_ids["sft-1"]), "the job is signalled")
    assert words(ended(submission)) == ["continued", "continued", "succeeded", "not needed", "succeeded"]


def test_a_segment_that_is_killed_without_a_word_is_tried_again(cluster, tmp_path):
    """The batch script itself dies: no verdict, no exit code."""
    submission = submit(training_plan(tmp_path, "wait-for-save", "finish", jobs=2), cluster)
    begun(tmp_path, 1)
    (script,) = processes_of(submission.job_ids["sft-0"], "slurm_script")
    os.kill(script, signal.SIGKILL)
    assert words(ended(submission)) == ["failed", "succeeded", "succeeded"]


@pytest.mark.slow
def test_a_time_limit_in_the_middle_of_a_save_costs_no_more_than_that_save(cluster, tmp_path):
    """A real limit of one minute: Slurm says that it is near, the save begins, and Slurm kills the job."""
    plan = training_plan(tmp_path, "save-too-long", "finish", jobs=2)
    limited = [replace(one, resources=Resources(time_limit="0-00:01:00")) for one in plan.jobs]
    submission = submit(replace(plan, jobs=tuple(limited)), cluster)
    assert words(ended(submission, at_most=200)) == ["failed", "succeeded", "succeeded"]
    assert (tmp_path / "checkpoints" / ".tmp-step_9").exists()
    assert "timeout" in statuses_of(submission.run)["sft-0"].reason


def test_what_waits_for_a_run_that_fails_never_starts(cluster, tmp_path):
    """No segment of it, although a cancelled segment would let the next one start."""
    fails = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; exit 1"
    first = submit(plan_of(job("a", shell(fails), tmp_path)), cluster)
    waiting = replace(training_plan(tmp_path, "finish", jobs=3), expname="second", run_after=("exp",))
    second = submit(waiting, cluster)
    (tmp_path / "go").touch()
    assert words(ended(second)) == ["cancelled"] * 4
    assert words(ended(first)) == ["failed"]
    assert starts(tmp_path) == 0


@pytest.mark.parametrize("kill", [True, False])
def test_jobs_that_can_never_start_are_cancelled_with_and_without_the_help_of_slurm(
    cluster: ClusterConfig, tmp_path, kill
):
    plan = plan_of(
        job("bad", shell("exit 3"), tmp_path),
        job("waits", shell("true"), tmp_path, "bad"),
        job("waits-too", shell("true"), tmp_path, "waits"),
    )
    submission = submit(plan, replace(cluster, kill_on_invalid_dep=kill))
    if not kill:
        never = "DependencyNeverSatisfied"
        until(lambda: ask("squeue", "-h", "-n", "waits", "-o", "%r") == never, "Slurm leaves it in the queue")
    assert words(ended(submission)) == ["failed", "cancelled", "cancelled"]


def test_a_stage_that_ends_well_without_its_output_has_failed(cluster, tmp_path):
    """What waits for it needs the output, not the exit code."""
    plan = plan_of(
        job("makes", shell("true"), tmp_path), job("uses", shell("true"), tmp_path, "makes"), makes=tmp_path / "out"
    )
    submission = submit(plan, cluster)
    assert words(ended(submission)) == ["failed", "cancelled"]
    log = next((tmp_path / "logs").glob("makes_*_sbatch.log")).read_text()
    assert f"makes ended with exit code 0, but without a finished {tmp_path}/out" in log


@pytest.mark.slow
def test_one_job_may_be_the_whole_chain(cluster, tmp_path):
    """``chain: requeue``, for sites that do not take ``afternotok``."""
    plan = training_plan(tmp_path, "step", "crash", "step", "finish", jobs=4, total=9, requeue=True)
    submission = submit(plan, cluster)
    assert words(ended(submission)) == ["succeeded", "succeeded"]
    assert starts(tmp_path) == 4
    assert statuses_of(submission.run)["sft-0"].restarts == 3


@pytest.mark.slow
def test_one_job_that_is_the_whole_chain_starts_no_more_often_than_it_may(cluster, tmp_path):
    submission = submit(training_plan(tmp_path, "step", jobs=2, total=9, requeue=True), cluster)
    assert words(ended(submission)) == ["continued", "cancelled"]
    assert starts(tmp_path) == 2
