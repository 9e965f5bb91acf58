"""What is known of jobs when Slurm has forgotten them, with accounting and without, and what may come after them."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from skills_pipe.errors import PlanError, StoreError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.executors.registry import cancel_run, statuses_of
from skills_pipe.pipeline.plan import Plan, Resources
from skills_pipe.pipeline.submit import Submission, submit
from tests.pipeline.chaos.scenes import ask, begun, queue, words
from tests.pipeline.programs import job, plan_of, shell, training_plan, until
from tests.slurm.accounting import ACCOUNT
from tests.slurm.spec import ClusterSpec

pytestmark = pytest.mark.slurm


def slurm_at(folder: Path) -> ClusterConfig:
    return ClusterConfig(name="test", executor=ExecutorKind.SLURM, job_dir=str(folder / "jobs"))


@pytest.fixture
def forgetful(slurm_forgetful, tmp_path) -> ClusterConfig:
    """Without accounting."""
    return slurm_at(tmp_path)


@pytest.fixture
def accounting(slurm_clusters, tmp_path, monkeypatch) -> ClusterConfig:
    """As forgetful, but sacct remembers."""
    cluster = slurm_clusters.get(ClusterSpec(accounting=True, min_job_age=2, containers=False))
    cluster.reset()
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    return replace(slurm_at(tmp_path), account=ACCOUNT)


def forgotten() -> None:
    """Wait until all jobs have ended and the controller knows none of them."""
    until(lambda: not queue(), "all jobs have ended")
    until(lambda: not ask("squeue", "-h", "-t", "all"), "all jobs are forgotten")


def after(submission: Submission, *references: str) -> Plan:
    """A plan of one job that comes after these."""
    folder = submission.run_dir.parents[3]
    plan = plan_of(job("after", shell("true"), folder))
    return replace(plan, expname="after", run_after=references)


def test_a_run_that_nobody_watched_is_told_right_after_all_is_forgotten(forgetful, tmp_path):
    submission = submit(training_plan(tmp_path, "step", "crash", "finish", jobs=4), forgetful)
    forgotten()
    statuses = statuses_of(submission.run)
    states = [status.state.value for status in statuses.values()]
    assert states == ["continued", "failed", "succeeded", "not needed", "succeeded"]
    assert statuses["sft-1"].exit_code not in (None, 0)
    for name in ("sft-0", "sft-2", "convert"):
        status = statuses[name]
        assert status.started_at is not None and status.ended_at is not None
        assert 0 <= status.ended_at - status.started_at < 60 and time.time() - status.ended_at < 120


def test_what_never_started_and_is_forgotten_was_cancelled(forgetful, tmp_path):
    submission = submit(
        plan_of(job("bad", shell("exit 3"), tmp_path), job("b", shell("true"), tmp_path, "bad")), forgetful
    )
    forgotten()
    assert words(submission.states()) == ["failed", "cancelled"]


def test_the_time_of_all_starts_counts(forgetful, tmp_path):
    plan = training_plan(tmp_path, "wait-for-save", "finish", jobs=1)
    on_gpus = replace(plan.jobs[0], resources=Resources(num_nodes=2, num_gpus=2))
    submission = submit(replace(plan, jobs=(on_gpus, plan.jobs[1])), forgetful)
    begun(tmp_path, 1)
    time.sleep(1)
    ask("scontrol", "requeue", submission.job_ids["sft-0"])
    forgotten()
    status = statuses_of(submission.run)["sft-0"]
    assert status.restarts == 1 and status.earlier_seconds >= 1 and status.gpus == 4
    assert status.started_at is not None and status.ended_at is not None
    last = status.ended_at - status.started_at
    assert status.gpu_hours(time.time()) == pytest.approx(4 * (status.earlier_seconds + last) / 3600)


def test_another_slurm_that_sees_the_same_folder_is_not_asked(forgetful, tmp_path):
    """To it the ids mean nothing, or jobs of somebody else: it would be told that all were cancelled, and for good."""
    go = tmp_path / "go"
    submission = submit(plan_of(job("a", shell(f"until [ -e {go} ]; do sleep 0.05; done"), tmp_path)), forgetful)
    record = submission.run.submission
    assert record is not None and record.slurm == "test"
    submission.run.write_submission(replace(record, slurm="elsewhere", job_ids={"a": "1"}))
    for ask_it in (statuses_of, cancel_run):
        with pytest.raises(StoreError, match="the jobs are those of Slurm 'elsewhere', and here is 'test'"):
            ask_it(submission.run)
    submission.run.write_submission(record)
    assert words(submission.states())[0] in ("pending", "running")
    go.touch()
    assert submission.wait().succeeded


def as_somebody_else(look: Callable[[], str]) -> str:
    """What ``look`` gives to a process of another user."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        try:
            text = look()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as answer:
        return answer.read()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every user may look into."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_run_of_somebody_else_can_be_looked_at_and_nothing_more(forgetful, open_folder):
    """Nothing is recorded or cancelled by the way, as one's own looks do."""
    go = open_folder / "go"
    plan = plan_of(
        job("a", shell(f"until [ -e {go} ]; do sleep 0.05; done; exit 1"), open_folder),
        job("b", shell("true"), open_folder, "a"),
    )
    cluster = replace(forgetful, job_dir=str(open_folder / "jobs"), kill_on_invalid_dep=False)
    submission = submit(plan, cluster)
    until(lambda: words(submission.states())[0] == "running", "the first one runs")
    look = lambda: " ".join(words({n: s.state for n, s in statuses_of(submission.run).items()}))  # noqa: E731
    assert as_somebody_else(look) == "running pending"
    stop = lambda: " ".join(cancel_run(submission.run))  # noqa: E731
    assert as_somebody_else(stop).startswith("StoreError: run exp/run-1 is not yours to cancel")
    go.touch()
    never = "DependencyNeverSatisfied"
    until(lambda: ask("squeue", "-h", "-n", "b", "-o", "%r") == never, "Slurm leaves the second in the queue")
    assert as_somebody_else(look) == "failed cancelled"
    assert queue() == ["b"]
    assert words(submission.states()) == ["failed", "cancelled"]
    until(lambda: not queue(), "the owner's look has cancelled it")


# Jobs that a run comes after


def test_a_run_that_ended_well_and_is_forgotten_is_not_waited_for(forgetful, tmp_path):
    first = submit(plan_of(job("a", shell("true"), tmp_path)), forgetful)
    forgotten()
    second = submit(after(first, "exp"), forgetful)
    assert "--dependency" not in (second.run_dir / "submit.sh").read_text()
    assert second.wait().succeeded


def test_without_accounting_a_job_that_is_forgotten_is_refused(forgetful, tmp_path):
    """Nobody can tell how it ended, and Slurm would start at once what waits for it."""
    first = submit(plan_of(job("a", shell("true"), tmp_path)), forgetful)
    forgotten()
    with pytest.raises(PlanError, match=f"Slurm does not know job {first.job_ids['a']} any more"):
        submit(after(first, f"jobid:{first.job_ids['a']}"), forgetful)
    assert queue() == []


@pytest.mark.slow
def test_with_accounting_it_is_known_how_a_forgotten_job_ended(accounting, tmp_path):
    good, bad = (submit(replace(plan_of(job(n, shell(c), tmp_path)), expname=n), accounting) for n, c in _GOOD_AND_BAD)
    forgotten()
    assert [words(run.states()) for run in (good, bad)] == [["succeeded"], ["failed"]]
    second = submit(after(good, f"jobid:{good.job_ids['good']}"), accounting)
    assert second.wait().succeeded
    with pytest.raises(PlanError, match=f"job {bad.job_ids['bad']} did not end well: it is FAILED"):
        submit(after(bad, f"jobid:{bad.job_ids['bad']}"), accounting)


_GOOD_AND_BAD = (("good", "true"), ("bad", "exit 3"))


def test_a_live_job_is_waited_for_and_its_failure_cancels_what_waits(forgetful, tmp_path):
    gate = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; exit 1"
    first = submit(plan_of(job("a", shell(gate), tmp_path)), forgetful)
    second = submit(after(first, f"jobid:{first.job_ids['a']}", "exp"), forgetful)
    (tmp_path / "go").touch()
    forgotten()
    assert words(second.states()) == ["cancelled"]


def test_a_job_that_fails_while_it_is_submitted_takes_the_submission_back(forgetful, tmp_path, monkeypatch):
    """It was live when it was looked up, and has failed when all is queued."""
    gate = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; exit 1"
    first = submit(plan_of(job("a", shell(gate), tmp_path)), forgetful)
    # The real sbatch, once the job before has failed.
    (tmp_path / "bin").mkdir()
    slow = tmp_path / "bin" / "sbatch"
    slow.write_text(
        f'#!/bin/bash\n[ "$1" = --version ] || {{ touch {tmp_path}/go; '
        f"until squeue -h -t all -j {first.job_ids['a']} -o %T | grep -q FAILED; do sleep 0.1; done; }}\n"
        'PATH=${PATH#*:} exec sbatch "$@"\n'
    )
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    with pytest.raises(PlanError, match=f"job {first.job_ids['a']}, which has to end well first, is FAILED"):
        submit(after(first, "exp"), forgetful)
    assert queue() == []


@pytest.mark.slow
@pytest.mark.parametrize("remembered", ["by the controller", "by the accounting"])
def test_habits_of_the_user_hide_no_job_and_change_no_time(slurm_clusters, tmp_path, monkeypatch, remembered):
    """A partition that is none of the job's, and times without a day."""
    age = 600 if remembered == "by the controller" else 2
    slurm = slurm_clusters.get(ClusterSpec(accounting=True, min_job_age=age, containers=age == 600))
    slurm.reset()
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    habits = {"SQUEUE_PARTITION": "high", "SACCT_FORMAT": "JobID", "SLURM_TIME_FORMAT": "relative", "TZ": "Asia/Tokyo"}
    for name, value in (habits | {"SBATCH_TIMELIMIT": "1", "SBATCH_PARTITION": "high"}).items():
        monkeypatch.setenv(name, value)
    before = time.time()
    plan = plan_of(job("a", shell("true"), tmp_path), job("b", shell("true"), tmp_path, "a"))
    submission = submit(plan, replace(slurm_at(tmp_path), account=ACCOUNT))
    if age == 2:
        until(lambda: not ask("env", "-u", "SQUEUE_PARTITION", "squeue", "-h", "-t", "all"), "all jobs are forgotten")
    else:
        submission.wait()
    for status in statuses_of(submission.run).values():
        assert status.state.value == "succeeded" and status.started_at is not None and status.ended_at is not None
        assert before - 2 < status.started_at <= status.ended_at < time.time() + 2
