"""Plans whose jobs this machine starts one by one through nemo-run, by its executor for local processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from skills_pipe.errors import JobFailed, PlanError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.executors.registry import executor_of, statuses_of
from skills_pipe.pipeline.records.process import ProcessId, job_mark, marked
from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.records.store import Run, RunStore
from skills_pipe.pipeline.submit import submit
from tests.pipeline.nemo_run.submitter import start_submitting
from tests.pipeline.programs import job, make, plan_of, shell, training_plan, until

pytestmark = pytest.mark.nemo_run
S = JobState


@pytest.fixture
def cluster(nemo_run_python, tmp_path) -> ClusterConfig:
    return ClusterConfig(
        name="test",
        executor=ExecutorKind.NEMO_RUN,
        job_dir=str(tmp_path / "jobs"),
        nemo_run={"executor": "local", "python": nemo_run_python},
    )


def latest(folder: Path) -> Run:
    return RunStore(folder / "jobs").latest("exp")


def states(folder: Path) -> dict[str, JobState]:
    return {name: status.state for name, status in statuses_of(latest(folder)).items()}


def test_a_job_runs_and_its_log_and_output_are_where_they_belong(cluster, tmp_path):
    one = job("a", shell(f'echo "$NAME_OF_JOB"; {sys.executable} -c pass; exec "$0" "$@"'), tmp_path)
    argv = (*one.command.argv, *make(tmp_path / "out"))
    submission = submit(plan_of(replace(one, command=replace(one.command, argv=argv)), a=tmp_path / "out"), cluster)
    assert submission.succeeded and submission.states() == {"a": S.SUCCEEDED}
    record = latest(tmp_path).submission
    assert record.executor == "nemo_run" and record.cluster == "test"
    assert Path(record.logs["a"]).read_text().splitlines()[:2] == ["a", "made out"]


def test_a_job_after_a_failed_one_never_runs(cluster, tmp_path):
    """nemo-run itself would run it."""
    plan = plan_of(
        job("good", shell("true"), tmp_path),
        job("bad", shell("exit 3"), tmp_path, "good"),
        job("waits", shell(f"touch {tmp_path}/ran"), tmp_path, "bad"),
    )
    with pytest.raises(JobFailed, match="bad"):
        submit(plan, cluster)
    assert states(tmp_path) == {"good": S.SUCCEEDED, "bad": S.FAILED, "waits": S.CANCELLED}
    assert not (tmp_path / "ran").exists()


def test_a_chain_goes_on_until_the_work_is_done(cluster, tmp_path):
    submission = submit(training_plan(tmp_path, "step", jobs=3, total=2), cluster)
    assert submission.states() == {
        "sft-0": S.CONTINUED,
        "sft-1": S.SUCCEEDED,
        "sft-2": S.NOT_NEEDED,
        "convert": S.SUCCEEDED,
    }


def test_secrets_reach_the_job_and_stand_in_no_file_but_one(cluster, tmp_path, monkeypatch):
    secret = "hf_planted-for-this-test"
    monkeypatch.setenv("HF_TOKEN", secret)
    submit(plan_of(job("a", shell('echo "token ${#HF_TOKEN}"'), tmp_path)), cluster)
    assert f"token {len(secret)}" in Path(latest(tmp_path).submission.logs["a"]).read_text()
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_text(errors="replace")]
    assert [path.name for path in holders] == ["secrets.env"]
    assert holders[0].stat().st_mode & 0o777 == 0o600


def test_a_keyword_that_nemo_run_lacks_is_told_before_anything_runs(cluster, tmp_path):
    wrong = replace(cluster, nemo_run={**cluster.nemo_run, "shm_size": "30g"})
    with pytest.raises(PlanError, match="LocalExecutor of nemo-run has no keyword 'shm_size'"):
        submit(plan_of(job("a", shell(f"touch {tmp_path}/ran"), tmp_path)), wrong)
    assert not (tmp_path / "ran").exists()


# Stopping


def started(folder: Path, cluster: ClusterConfig) -> subprocess.Popen[bytes]:
    """A process that submits a long job, once the job runs."""
    long = job("a", shell(f"touch {folder}/on; sleep 600"), folder)
    process = start_submitting(plan_of(long, job("b", shell("true"), folder, "a")), cluster)
    until((folder / "on").exists, "the job runs")
    return process


def processes(folder: Path) -> list[ProcessId]:
    return marked(job_mark(latest(folder).folder, "a"))


def test_cancelling_ends_the_job_and_what_waits(cluster, tmp_path):
    process = started(tmp_path, cluster)
    assert len(processes(tmp_path)) > 1
    executor_of(latest(tmp_path)).cancel(latest(tmp_path))
    assert process.wait(60) != 0
    assert states(tmp_path) == {"a": S.CANCELLED, "b": S.CANCELLED}
    assert processes(tmp_path) == []


def test_when_the_submitter_is_killed_the_job_is_known_and_can_be_stopped(cluster, tmp_path):
    process = started(tmp_path, cluster)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert states(tmp_path)["b"] is S.LOST
    executor_of(latest(tmp_path)).cancel(latest(tmp_path))
    assert states(tmp_path)["a"] is S.CANCELLED
    assert processes(tmp_path) == []
