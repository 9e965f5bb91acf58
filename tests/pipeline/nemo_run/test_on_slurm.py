"""Plans that nemo-run's own Slurm executor queues on a real Slurm."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from skills_pipe.errors import PlanError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, EnvVar, ExecutorKind
from skills_pipe.pipeline.cluster.file import parse_mount
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.plan import Launch, Resources
from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.records.store import Run, RunStore
from skills_pipe.pipeline.submit import Submission, submit
from tests.pipeline.nemo_run.submitter import start_submitting
from tests.pipeline.programs import job, make, plan_of, shell, training_plan, until

pytestmark = [pytest.mark.nemo_run, pytest.mark.slurm]
S = JobState


@pytest.fixture
def cluster(slurm_accounting, nemo_run_python, tmp_path) -> ClusterConfig:
    return ClusterConfig(
        name="test",
        executor=ExecutorKind.NEMO_RUN,
        job_dir=str(tmp_path / "jobs"),
        account="root",
        nemo_run={"executor": "slurm", "python": nemo_run_python},
    )


def ended(submission: Submission) -> dict[str, JobState]:
    until(lambda: all(state.ended for state in submission.states().values()), "all jobs have ended", at_most=90)
    return submission.states()


def queue() -> list[str]:
    """Names of the jobs that run or wait."""
    return subprocess.run(["squeue", "-h", "-o", "%j"], capture_output=True, text=True, check=True).stdout.split()


def accounts(ids: str) -> list[str]:
    """Name and state of jobs in the accounting database."""
    argv = ["sacct", "-n", "-P", "-X", "-j", ids, "-o", "JobName,State"]
    return sorted(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())


def log_of(submission: Submission, name: str) -> str:
    record = Run(submission.run_dir).submission
    return Path(record.logs[name]).read_text()


def test_three_jobs_run_in_the_order_of_their_edges(cluster, tmp_path):
    log = lambda name: shell(f"echo {name} >> {tmp_path}/order")  # noqa: E731
    plan = plan_of(job("a", log("a"), tmp_path), job("b", log("b"), tmp_path, "a"), job("c", log("c"), tmp_path, "b"))
    submission = submit(plan, cluster)
    assert ended(submission) == {"a": S.SUCCEEDED, "b": S.SUCCEEDED, "c": S.SUCCEEDED}
    assert (tmp_path / "order").read_text().split() == ["a", "b", "c"]
    record = Run(submission.run_dir).submission
    assert record.executor == "nemo_run" and all(number.isdigit() for number in record.job_ids.values())
    ids = ",".join(record.job_ids.values())
    # The database hears of an end a little later.
    until(lambda: accounts(ids) == ["a|COMPLETED", "b|COMPLETED", "c|COMPLETED"], "sacct knows them all")


def test_what_waits_for_a_failed_job_never_runs_and_nothing_hangs(cluster, tmp_path):
    plan = plan_of(
        job("bad", shell("exit 3"), tmp_path),
        job("waits", shell(f"touch {tmp_path}/ran"), tmp_path, "bad"),
        job("waits-too", shell(f"touch {tmp_path}/ran"), tmp_path, "waits"),
        job("other", shell("true"), tmp_path),
    )
    submission = submit(plan, cluster)
    assert ended(submission) == {"bad": S.FAILED, "waits": S.CANCELLED, "waits-too": S.CANCELLED, "other": S.SUCCEEDED}
    assert not (tmp_path / "ran").exists() and queue() == []
    assert Run(submission.run_dir).exit_code("bad") == 3


def test_values_arrive_as_they_are_and_logs_lie_where_they_are_looked_for(cluster, tmp_path):
    value = """two words; $HOME "and" 'quotes' `date` \\ *"""
    one = job("a", ("python", "-c", "import os, sys; print(os.environ['odd_Name'], sys.argv[1])", value), tmp_path)
    plan = plan_of(replace(one, command=replace(one.command, env=(("odd_Name", value),))))
    submission = submit(plan, replace(cluster, env=(EnvVar(name="FROM_CONFIG", value="a b"),)))
    assert ended(submission) == {"a": S.SUCCEEDED}
    assert log_of(submission, "a").splitlines() == [f"{value} {value}"]


def test_secrets_reach_the_job_and_stand_in_no_file_but_one(cluster, tmp_path, monkeypatch):
    secret = "hf_planted-for-this-test"
    monkeypatch.setenv("HF_TOKEN", secret)
    monkeypatch.setenv("PLANTED", secret)
    told = 'echo "token ${#HF_TOKEN}, planted ${#PLANTED}"'
    submission = submit(plan_of(job("a", shell(told), tmp_path)), cluster)
    assert ended(submission) == {"a": S.SUCCEEDED}
    assert log_of(submission, "a") == f"token {len(secret)}, planted 0\n"
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_text(errors="replace")]
    assert [path.name for path in holders] == ["secrets.env"]
    assert holders[0].stat().st_mode & 0o777 == 0o600


def test_of_what_is_around_nothing_reaches_a_job_and_its_profile_is_not_read(
    cluster, slurm_accounting, tmp_path, monkeypatch
):
    monkeypatch.setenv("PLANTED_HERE", "hf-of-the-shell")
    monkeypatch.setenv("SBATCH_EXPORT", "ALL")
    monkeypatch.setenv("SBATCH_GET_USER_ENV", "1")
    with slurm_accounting.with_file("export PLANTED_THERE=hf-of-the-profile\n", at=Path("/root/.profile")):
        submission = submit(plan_of(job("a", shell("env"), tmp_path)), cluster)
        assert ended(submission) == {"a": S.SUCCEEDED}
    told = log_of(submission, "a")
    assert "PLANTED" not in told and "NEMORUN_HOME" not in told and "HOME=/root" in told


def test_negative_control_a_job_without_any_variable_gets_those_of_its_profile(slurm_accounting, tmp_path):
    (tmp_path / "script").write_text(f"#!/bin/bash\nenv > {tmp_path}/env\n")
    options = ("--account=root", "--output=/dev/null", "--export=NIL")
    with slurm_accounting.with_file("export PLANTED_THERE=hf-of-the-profile\n", at=Path("/root/.profile")):
        slurm_accounting.run("sbatch", "--wait", *options, str(tmp_path / "script"))
    assert "PLANTED_THERE=hf-of-the-profile" in (tmp_path / "env").read_text()


def test_negative_control_a_job_with_all_variables_gets_those_of_the_shell(slurm_accounting, tmp_path, monkeypatch):
    monkeypatch.setenv("PLANTED_HERE", "hf-of-the-shell")
    options = ("--account=root", "--output=/dev/null", "--export=ALL")
    slurm_accounting.run("sbatch", "--wait", *options, f"--wrap=env > {tmp_path}/env")
    assert "PLANTED_HERE=hf-of-the-shell" in (tmp_path / "env").read_text()


def test_logs_lie_in_a_folder_whose_name_looks_like_a_pattern_of_slurm(cluster, tmp_path):
    folder = tmp_path / "50%_%j"
    submission = submit(plan_of(job("a", shell("echo done"), folder)), cluster)
    assert ended(submission) == {"a": S.SUCCEEDED}
    assert log_of(submission, "a") == "done\n"
    assert Path(Run(submission.run_dir).submission.logs["a"]).parent == folder / "logs"


def test_a_training_job_starts_once_per_gpu_on_every_node(cluster, tmp_path):
    one = job("a", shell('echo "$SLURM_PROCID of $SLURM_NTASKS on $SLURM_NODEID"'), tmp_path)
    ranks = replace(
        one, command=replace(one.command, launch=Launch.PER_GPU), resources=Resources(num_nodes=2, num_gpus=2)
    )
    submission = submit(plan_of(ranks), cluster)
    assert ended(submission) == {"a": S.SUCCEEDED}
    assert sorted(log_of(submission, "a").splitlines()) == [f"{rank} of 4 on {rank // 2}" for rank in range(4)]


def test_one_training_job_and_what_waits_for_it(cluster, tmp_path):
    submission = submit(training_plan(tmp_path, "finish", jobs=1), cluster)
    assert ended(submission) == {"sft-0": S.SUCCEEDED, "convert": S.SUCCEEDED}


def test_a_training_job_without_time_to_finish_goes_on_with_the_same_command(cluster, tmp_path):
    plan = training_plan(tmp_path, "step", "finish", jobs=1)
    submission = submit(plan, cluster)
    assert ended(submission) == {"sft-0": S.CONTINUED, "convert": S.CANCELLED}
    assert Run(submission.run_dir).exit_code("sft-0") == 75
    again = submit(plan, cluster)
    assert again.actions["sft"] == "continue"
    assert ended(again) == {"sft-0": S.SUCCEEDED, "convert": S.SUCCEEDED}


def test_a_chain_is_refused_before_anything_is_queued(cluster, tmp_path):
    with pytest.raises(PlanError, match=r"'sft-0', 'sft-1'.*--num_training_jobs=1, or use executor: slurm"):
        submit(training_plan(tmp_path, "finish", jobs=2), cluster)
    assert queue() == [] and not (tmp_path / "jobs").exists()


def test_when_slurm_refuses_one_job_none_of_them_stays(cluster, tmp_path):
    good = job("a", shell("true"), tmp_path)
    bad = replace(job("b", shell("true"), tmp_path, "a"), resources=Resources(partition="nowhere"))
    with pytest.raises(PlanError, match=r"nemo-run refused: .*invalid partition"):
        submit(plan_of(good, bad), cluster)
    assert queue() == []
    assert RunStore(tmp_path / "jobs").runs("exp")[0].submission is None


def test_cancelling_stops_what_runs_and_what_waits(cluster, tmp_path):
    plan = plan_of(job("a", shell(f"touch {tmp_path}/on; sleep 600"), tmp_path), job("b", shell("true"), tmp_path, "a"))
    submission = submit(plan, cluster)
    until((tmp_path / "on").exists, "the first job runs")
    assert sorted(submission.cancel()) == ["a", "b"]
    assert ended(submission) == {"a": S.CANCELLED, "b": S.CANCELLED}


def test_a_finished_stage_is_not_run_again(cluster, tmp_path):
    plan = plan_of(job("a", make(tmp_path / "out"), tmp_path), a=tmp_path / "out")
    assert ended(submit(plan, cluster)) == {"a": S.SUCCEEDED}
    assert submit(plan, cluster).actions == {"a": "skip"}


def test_a_keyword_that_nemo_run_lacks_is_told_before_anything_is_queued(cluster, tmp_path):
    wrong = replace(cluster, nemo_run={**cluster.nemo_run, "memmory": "4G"})
    with pytest.raises(PlanError, match="SlurmExecutor of nemo-run has no keyword 'memmory'"):
        submit(plan_of(job("a", shell("true"), tmp_path)), wrong)
    assert queue() == []


def test_in_containers_a_job_sees_its_mounts_its_records_and_the_code(cluster, pyxis, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    where = replace(
        cluster,
        containers={"nemo-skills": str(pyxis.folder)},
        container_runtime=ContainerRuntime.PYXIS,
        mounts=tuple(map(parse_mount, (f"{work}:/work", *pyxis.mounts))),
    )
    inside = training_plan(Path("/work"), "finish", jobs=1)
    look = job("look", shell("cat /etc/os-release; test ! -e /usr/sbin/slurmd; pwd; touch /nowhere"), Path("/work"))
    submission = submit(replace(inside, mounts=where.mounts), where)
    assert ended(submission) == {"sft-0": S.SUCCEEDED, "convert": S.SUCCEEDED}, log_of(submission, "sft-0")
    assert (work / "model.manifest.json").exists() and (work / "checkpoints/manifest.json").exists()
    seen = submit(replace(plan_of(look), expname="look", mounts=where.mounts), where)
    assert ended(seen) == {"look": S.FAILED}, "the root is read-only"
    log = log_of(seen, "look")
    assert "Debian" in log and "Read-only file system" in log


def test_a_run_waits_for_a_job_that_is_named_by_its_number(cluster, tmp_path):
    argv = ["sbatch", "--parsable", "--hold", "--account=root", f"--output={tmp_path}/before.log"]
    before = subprocess.run([*argv, f"--wrap=touch {tmp_path}/before"], capture_output=True, text=True, check=True)
    number = before.stdout.strip()
    first = job("a", shell(f"test -e {tmp_path}/before"), tmp_path)
    plan = replace(plan_of(first, job("b", shell("true"), tmp_path, "a")), run_after=(f"jobid:{number}",))
    submission = submit(plan, cluster)
    assert submission.states() == {"a": S.PENDING, "b": S.PENDING}
    subprocess.run(["scontrol", "release", number], check=True)
    assert ended(submission) == {"a": S.SUCCEEDED, "b": S.SUCCEEDED}


def test_killed_while_it_queues_nothing_stays_and_nothing_has_run(cluster, tmp_path):
    jobs = [job(f"job-{number}", shell(f"touch {tmp_path}/ran"), tmp_path) for number in range(20)]
    process = start_submitting(plan_of(*jobs), cluster)
    until(lambda: len(queue()) > 3, "some jobs are queued")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    run = RunStore(tmp_path / "jobs").latest("exp")
    until(lambda: statuses_of(run) is not None and not queue(), "what was queued is taken back")
    assert run.submission is None and not (tmp_path / "ran").exists()
