"""Plans whose jobs run in containers of a real Docker, by nemo-run's executor for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from skills_pipe.errors import JobFailed
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, EnvVar, ExecutorKind
from skills_pipe.pipeline.executors.registry import executor_of, statuses_of
from skills_pipe.pipeline.plan import Mount, Plan
from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.records.store import Run, RunStore
from skills_pipe.pipeline.submit import submit
from tests.pipeline.nemo_run.docker_daemon import IMAGE
from tests.pipeline.nemo_run.submitter import start_submitting
from tests.pipeline.programs import job, make, plan_of, shell, training_plan, until

pytestmark = pytest.mark.nemo_run
S = JobState
WORK = Path("/work")


@pytest.fixture
def cluster(docker, nemo_run_python, tmp_path) -> ClusterConfig:
    (tmp_path / "work").mkdir()
    (tmp_path / "data").mkdir()
    return ClusterConfig(
        name="test",
        executor=ExecutorKind.NEMO_RUN,
        job_dir=str(tmp_path / "jobs"),
        containers={"nemo-skills": IMAGE},
        container_runtime=ContainerRuntime.PYXIS,
        mounts=(
            Mount(source=str(tmp_path / "work"), target="/work"),
            Mount(source=str(tmp_path / "data"), target="/data", read_only=True),
        ),
        nemo_run={"executor": "docker", "python": nemo_run_python, "network": "host"},
    )


def mounted(plan: Plan, cluster: ClusterConfig) -> Plan:
    return replace(plan, mounts=cluster.mounts)


def latest(folder: Path) -> Run:
    return RunStore(folder / "jobs").latest("exp")


def states(folder: Path) -> dict[str, JobState]:
    return {name: status.state for name, status in statuses_of(latest(folder)).items()}


def test_a_job_sees_its_mounts_its_values_and_the_code(cluster, tmp_path, monkeypatch, docker):
    monkeypatch.setenv("HF_TOKEN", "hf_planted-for-this-test")
    value = """two words; $HOME "and" 'quotes' `date` \\ *"""
    text = 'echo "token ${#HF_TOKEN}"; echo "$ODD"; touch /data/x; python -c "import skills_pipe; print(1 + 1)"'
    plan = mounted(plan_of(job("a", shell(text), WORK)), cluster)
    submission = submit(plan, replace(cluster, env=(EnvVar(name="ODD", value=value),)))
    assert submission.states() == {"a": S.SUCCEEDED}
    log = Path(latest(tmp_path).submission.logs["a"])
    assert log.is_relative_to(tmp_path / "work/logs")
    lines = log.read_text().splitlines()
    assert "token 24" in lines and value in lines and "2" in lines
    assert any("Read-only file system" in line for line in lines)
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and b"hf_planted" in path.read_bytes()]
    assert [path.name for path in holders] == ["secrets.env"]
    assert docker.containers() == []


def test_keywords_reach_docker_and_variables_in_them_are_filled_in_last(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("SHARED_MEMORY", "77m")
    options = {**cluster.nemo_run, "shm_size": "{SHARED_MEMORY}"}
    plan = mounted(plan_of(job("a", shell("df --output=size -m /dev/shm | tail -n 1"), WORK)), cluster)
    assert submit(plan, replace(cluster, nemo_run=options)).succeeded
    run = latest(tmp_path)
    assert "77" in Path(run.submission.logs["a"]).read_text().split()
    assert "{SHARED_MEMORY}" in (run.folder / "nemo-run/a.json").read_text()
    # nemo-run stores what it was given.
    assert (run.folder / "nemo-run").stat().st_mode & 0o777 == 0o700


def test_outputs_are_sealed_and_a_chain_ends_in_its_gate(cluster, tmp_path):
    submission = submit(mounted(training_plan(WORK, "step", jobs=2, total=2), cluster), cluster)
    assert submission.states() == {"sft-0": S.CONTINUED, "sft-1": S.SUCCEEDED, "convert": S.SUCCEEDED}
    assert (tmp_path / "work/model.manifest.json").exists()


def test_a_job_after_a_failed_one_never_runs(cluster, tmp_path):
    plan = plan_of(job("bad", shell("exit 3"), WORK), job("waits", make(WORK / "out"), WORK, "bad"))
    with pytest.raises(JobFailed, match="bad"):
        submit(mounted(plan, cluster), cluster)
    assert states(tmp_path) == {"bad": S.FAILED, "waits": S.CANCELLED}
    assert not (tmp_path / "work/out").exists()


@pytest.mark.parametrize("killed", [False, True])
def test_cancelling_removes_the_container(cluster, tmp_path, docker, killed):
    plan = mounted(plan_of(job("a", shell("touch /work/on; sleep 600"), WORK)), cluster)
    process = start_submitting(plan, cluster)
    until((tmp_path / "work/on").exists, "the job runs")
    if killed:
        process.kill()
        process.wait()
        assert states(tmp_path) == {"a": S.RUNNING}
    assert len(docker.containers()) == 1
    executor_of(latest(tmp_path)).cancel(latest(tmp_path))
    assert process.wait(60) != 0
    assert states(tmp_path) == {"a": S.CANCELLED}
    until(lambda: docker.containers() == [], "the container is gone")
