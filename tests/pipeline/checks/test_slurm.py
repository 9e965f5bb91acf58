"""What preflight finds out from a real Slurm, and that a job which Slurm takes has no findings."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from skills_pipe.errors import PlanError
from skills_pipe.pipeline.checks.questions import Questions, ask
from skills_pipe.pipeline.cli import main, prepare_data, run_cmd
from skills_pipe.pipeline.transport.here import Here

pytestmark = pytest.mark.slurm


@pytest.fixture
def try_out(tmp_path, monkeypatch, capsys):
    """Dry-run a command with a configuration and options; what is told, errors included."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()

    def dry_run(options: dict[str, Any] | None = None, **keys: Any) -> str:
        cluster = {"executor": "slurm", "job_dir": str(tmp_path / "jobs"), "partition": "batch"} | keys
        try:
            run_cmd(command="true", cluster=cluster, dry_run=True, log_dir=str(tmp_path / "logs"), **(options or {}))
            told = ""
        except PlanError as error:
            told = str(error)
        return capsys.readouterr().out + told

    return dry_run


@pytest.fixture
def two_jobs(tmp_path, monkeypatch, capsys):
    """Dry-run a plan of two jobs, by default in the quality of service ``small``; what is told."""
    monkeypatch.chdir(tmp_path)

    def dry_run(qos: str | None = "small") -> str:
        cluster = {"executor": "slurm", "job_dir": str(tmp_path), "account": "root", "partition": "cpu"}
        keywords = {"data_dir": str(tmp_path / "data"), "qos": qos, "dry_run": True}
        try:
            prepare_data(benchmarks=["arithmetic", "gsm8k"], cluster=cluster, **keywords)
        except PlanError as error:
            return str(error)
        return capsys.readouterr().out

    return dry_run


def sbatch(*options: str) -> int:
    """Exit code of sbatch itself with the same wishes; the job is cancelled."""
    answer = subprocess.run(["sbatch", "--hold", "--parsable", *options, "--wrap=true"], capture_output=True, text=True)
    if answer.returncode == 0:
        subprocess.run(["scancel", answer.stdout.strip()], check=True)
    return answer.returncode


# --- partitions


def test_a_job_that_fits_has_no_findings(slurm, try_out):
    told = try_out({"num_nodes": 4, "num_gpus": 8}, default_timeout="00:10:00", account="root")
    assert "error" not in told and "warning" not in told
    # 4 nodes, 8 GPUs, a sixth of an hour
    assert "at most 5.33 GPU-hours in 1 job with GPUs" in told


def test_a_partition_that_is_not_there(slurm, try_out):
    told = try_out(partition="batsh")
    assert "there is no partition 'batsh' (partition of cluster '(given as a mapping)'): did you mean 'batch'?" in told
    assert "there is no partition 'nope' (--partition): choose from batch, cpu, tiny" in try_out({"partition": "nope"})


def test_a_time_limit_that_slurm_takes_and_never_starts(slurm, try_out):
    assert sbatch("--partition=tiny", "--time=10") == 0, "else sbatch would tell"
    told = try_out(partition="tiny", default_timeout=10)
    assert "may run 0-00:10:00, and partition 'tiny' allows 0-00:05:00: it would never start" in told
    assert "would never start" not in try_out(partition="tiny", default_timeout=5)


def test_more_nodes_than_a_partition_gives(slurm, try_out):
    told = try_out({"num_nodes": 2}, partition="tiny", default_timeout=5)
    assert "asks for 2 nodes, and partition 'tiny' gives 1 at most (--num_nodes)" in told
    assert "asks for 5 nodes, and partition 'batch' gives 4 at most" in try_out({"num_nodes": 5})


def test_of_several_partitions_one_that_takes_the_job_will_do(slurm, try_out):
    assert sbatch("--partition=tiny,batch", "--time=10") == 0 == sbatch("--partition=tiny,batch", "--nodes=3")
    for options, minutes in (({}, 10), ({"num_nodes": 3}, 3)):
        assert "error" not in (told := try_out(options, partition="tiny,batch", default_timeout=minutes))
        assert "tiny,batch" in told and "never start" not in told and "at most" not in told
    told = try_out({"num_nodes": 5}, partition="tiny,batch", default_timeout=10)
    assert "would never start" in told and "partition 'batch' gives 4 at most" in told
    assert sbatch("--partition=batsh,batch") != 0
    told = try_out(partition="batsh,batch")
    assert "there is no partition 'batsh' (partition of cluster '(given as a mapping)'): did you mean 'batch'?" in told


def test_one_cause_is_told_once(slurm, try_out):
    """sbatch refuses these too; what it says would explain nothing more."""
    told = try_out({"num_nodes": 5})
    assert "sbatch refuses" not in told


def test_more_gpus_than_a_node_has(slurm, try_out):
    told = try_out({"num_gpus": 9})
    assert "asks for 9 GPUs on a node, and nodes of partition 'batch' have 8 at most" in told
    assert "GPUs on each" not in try_out({"num_gpus": 8})


def test_a_partition_that_is_closed(slurm, try_out):
    slurm.run("scontrol", "update", "PartitionName=high", "State=DRAIN")
    slurm.run("scontrol", "update", "PartitionName=low", "State=DOWN")
    try:
        drained, down = try_out(partition="high"), try_out(partition="low")
    finally:
        for name in ("high", "low"):
            slurm.run("scontrol", "update", f"PartitionName={name}", "State=UP")
    assert "error" not in down and "warning: partition 'low' is DOWN: jobs wait until it is up again" in down
    assert "partition 'high' takes no jobs: it is DRAIN" in drained
    assert "takes no jobs" not in try_out(partition="high")


def test_nodes_that_are_down_are_told(slurm, try_out):
    slurm.run("scontrol", "update", "NodeName=node4", "State=DOWN", "Reason=test")
    try:
        told = try_out({"num_nodes": 4, "num_gpus": 1})
    finally:
        slurm.run("scontrol", "update", "NodeName=node4", "State=RESUME")
    assert "warning: " in told and "only 3 such nodes of partition 'batch' are up" in told


def test_what_only_sbatch_knows_is_told_in_its_words(slurm, try_out):
    told = try_out(sbatch={"mem": "1T"})
    assert "sbatch refuses" in told and "(sbatch --test-only)" in told
    assert "sbatch refuses" not in try_out(sbatch={"mem": "1G"})


# --- accounts and qualities of service


def test_an_account_of_somebody_else(slurm_accounting, try_out):
    assert sbatch("--account=nosuch") != 0
    told = try_out(account="reserch")
    assert "'reserch' is none of your accounts (account of cluster" in told and "did you mean 'research'?" in told
    assert "none of your accounts" not in try_out(account="research")


def test_without_accounts_any_name_will_do(slurm, try_out):
    assert "account" not in try_out(account="reserch")


def test_a_quality_of_service_that_one_may_not_use(slurm_accounting, try_out):
    assert sbatch("--qos=smal") != 0
    told = try_out({"qos": "smal"}, account="research")
    assert "you may not use the quality of service 'smal' (--qos): did you mean 'small'?" in told
    assert "may not use" not in try_out(qos="small", account="research")


def test_more_jobs_than_a_quality_of_service_takes(slurm_accounting, two_jobs):
    assert "at a time" not in two_jobs()
    job = slurm_accounting.run("sbatch", "--hold", "--parsable", "--qos=small", "--wrap=true").strip()
    try:
        told = two_jobs()
    finally:
        slurm_accounting.run("scancel", job)
    assert "the plan has 2 jobs, and the quality of service 'small' allows 2 at a time, of which 1 is queued" in told


def test_jobs_that_name_no_quality_of_service_get_that_of_their_account(slurm_accounting, two_jobs):
    change = ("sacctmgr", "-i", "modify", "user", "where", "name=root", "account=root", "set")
    job = slurm_accounting.run("sbatch", "--hold", "--parsable", "--qos=small", "--wrap=true").strip()
    try:
        by_default = two_jobs(qos=None)
        slurm_accounting.run(*change, "DefaultQOS=small")
        told = two_jobs(qos=None)
    finally:
        slurm_accounting.run(*change, "DefaultQOS=normal")
        slurm_accounting.run("scancel", job)
    assert "at a time" not in by_default
    assert "the plan has 2 jobs, and the quality of service 'small' allows 2 at a time, of which 1 is queued" in told


def test_more_jobs_than_an_account_takes(slurm_accounting, two_jobs):
    change = ("sacctmgr", "-i", "modify", "user", "where", "name=root", "account=root", "set")
    slurm_accounting.run(*change, "MaxSubmitJobs=1")
    try:
        told = two_jobs()
    finally:
        slurm_accounting.run(*change, "MaxSubmitJobs=-1")
    assert "the plan has 2 jobs, and account 'root' allows 1 at a time (account of cluster" in told
    assert "at a time" not in two_jobs()


# --- files


def test_files_are_looked_for_on_the_cluster(slurm, try_out, tmp_path):
    keys = {"container_runtime": "pyxis", "account": "root", "skip_hf_home_check": True}
    mounts = [f"{tmp_path}:{tmp_path}", f"{tmp_path}/nosuch:/data:ro"]
    told = try_out(**keys, containers={"nemo-skills": f"{tmp_path}/nosuch.sqsh"}, mounts=mounts)
    assert f"{tmp_path}/nosuch is mounted, and does not exist on the cluster" in told
    assert f"there is no image {tmp_path}/nosuch.sqsh on the cluster" in told
    (tmp_path / "image.sqsh").touch()
    assert "error" not in try_out(**keys, containers={"nemo-skills": f"{tmp_path}/image.sqsh"}, mounts=mounts[:1])


def test_hf_home_must_be_there_or_be_made(slurm, try_out, tmp_path):
    keys = {
        "container_runtime": "pyxis",
        "account": "root",
        "containers": {"nemo-skills": "org/image:1"},
        "mounts": [f"{tmp_path}:/work", f"{tmp_path}:{tmp_path}"],
        "env_vars": ["HF_HOME=/work/hf"],
    }
    assert f"warning: HF_HOME does not exist yet: {tmp_path}/hf on the cluster" in try_out(**keys)
    (tmp_path / "hf").mkdir()
    assert "HF_HOME" not in try_out(**keys)


# --- all of it


def test_everything_is_told_at_once(slurm_accounting, try_out, tmp_path):
    told = try_out(
        {"num_gpus": 9, "qos": "nosuch"},
        account="nosuch",
        partition="tiny",
        default_timeout=600,
        container_runtime="pyxis",
        containers={"nemo-skills": "image.sqsh"},
        mounts=["/nosuch:/data", f"{tmp_path}:{tmp_path}"],
        env_vars=["HF_HOME=/elsewhere"],
    )
    parts = ("none of your accounts", "may not use the quality", "never start", "9 GPUs", "/nosuch is mounted")
    for part in (*parts, "looked for in a registry", "HF_HOME /elsewhere is on no mount"):
        assert part in told, part


def test_nothing_is_submitted(slurm, try_out):
    before = slurm.run("squeue", "-h", "-o", "%i")
    try_out()
    assert slurm.run("squeue", "-h", "-o", "%i") == before


def test_a_plan_with_errors_is_not_submitted(slurm, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(f"executor: slurm\njob_dir: {tmp_path}/jobs\npartition: nope\naccount: root\n")
    assert main(["run_cmd", "--cluster=c.yaml", "--expname=x", f"--log_dir={tmp_path}", "true"]) == 2
    assert "there is no partition 'nope' (partition of cluster 'c')" in capsys.readouterr().err
    assert not (tmp_path / "jobs" / "experiments" / "x").exists()


def test_a_controller_that_is_down_is_no_answer(slurm_forgetful):
    slurm_forgetful.kill_controller()
    try:
        answers = ask(Questions(slurm=True, seconds=2), Here())
    finally:
        slurm_forgetful.start_controller()
    assert answers.slurm is None and answers.unreachable == "sinfo says nothing within 2 s"
