"""On Slurm the webhook is told when nobody is logged in any more, whatever has happened to the jobs."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.cluster.notify import Notify
from skills_pipe.pipeline.notification import with_notification
from skills_pipe.pipeline.submit import submit
from tests.pipeline.notify.listener import listening
from tests.pipeline.programs import job, plan_of, shell, training_plan, until

pytestmark = pytest.mark.slurm


@pytest.fixture
def hook():
    with listening() as listener:
        yield listener


@pytest.fixture
def cluster(slurm, tmp_path, hook) -> ClusterConfig:
    return ClusterConfig(
        name="test", executor=ExecutorKind.SLURM, job_dir=str(tmp_path / "jobs"), notify=Notify(webhook=hook.url)
    )


def run(plan, cluster):
    return submit(with_notification(plan, cluster), cluster)


def test_a_chain_that_completes_its_work_is_told_of_once(cluster, tmp_path, hook):
    assert run(training_plan(tmp_path, "step", jobs=3), cluster).wait().succeeded
    assert hook.texts == ["exp/run-1 ended well. ns status exp --cluster=test"]


def test_why_a_chain_was_stopped_is_told(cluster, tmp_path, hook):
    assert not run(training_plan(tmp_path, "refuse", jobs=2), cluster).wait().succeeded
    (text,) = hook.texts
    assert text.startswith("exp/run-1 did not end well: not finished: convert, sft (sft-0 cannot go on")


def test_a_batch_script_that_is_killed_cannot_keep_it_from_being_told(cluster, tmp_path, hook):
    """It leaves no exit code, and runs no trap."""
    submission = run(plan_of(job("a", shell(f"touch {tmp_path}/runs; sleep 600"), tmp_path)), cluster)
    until((tmp_path / "runs").exists, "the job runs")
    subprocess.run(["scancel", "--full", "--signal=KILL", submission.job_ids["a"]], check=True)
    submission.wait()
    assert hook.texts == ["exp/run-1 did not end well: not finished: a. ns status exp --cluster=test"]


def test_who_cancels_a_run_knows_already(cluster, tmp_path, hook):
    submission = run(plan_of(job("a", shell(f"touch {tmp_path}/runs; sleep 600"), tmp_path)), cluster)
    until((tmp_path / "runs").exists, "the job runs")
    assert submission.cancel() == ["a", "exp-notify"]
    submission.wait()
    assert hook.texts == []


def test_a_failed_run_before_does_not_keep_it_from_being_told(cluster, tmp_path, hook):
    quiet = replace(cluster, notify=None)
    first = submit(plan_of(job("a", shell(f"until [ -e {tmp_path}/go ]; do sleep 0.1; done; exit 1"), tmp_path)), quiet)
    plan = replace(plan_of(job("b", shell("true"), tmp_path)), expname="second", run_after=(str(first.run_dir),))
    second = run(plan, cluster)
    (tmp_path / "go").touch()
    second.wait()
    assert hook.texts == ["second/run-1 did not end well: not finished: b. ns status second --cluster=test"]


@pytest.mark.parametrize("end", ["exit 1", "true"])
def test_what_comes_after_the_run_waits_for_its_work_and_not_for_the_telling(cluster, tmp_path, end):
    """The job that tells ends well, whatever it tells."""
    first = run(plan_of(job("a", shell(f"until [ -e {tmp_path}/go ]; do sleep 0.1; done; {end}"), tmp_path)), cluster)
    plan = replace(plan_of(job("b", shell("true"), tmp_path)), expname="second", run_after=("exp",))
    second = submit(plan, replace(cluster, notify=None))
    (tmp_path / "go").touch()
    assert first.wait().succeeded == second.wait().succeeded == (end == "true")
