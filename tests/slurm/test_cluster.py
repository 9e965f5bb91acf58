"""The clusters of the fixtures are what they claim to be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.programs import until
from tests.slurm.accounting import ACCOUNT, QOS
from tests.slurm.cluster import SlurmCluster
from tests.slurm.spec import ClusterSpec

pytestmark = pytest.mark.slurm


def sbatch(cluster: SlurmCluster, script: str, *options: str) -> str:
    """Submit a script that logs to /dev/null; its job id."""
    return cluster.run("sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}").strip()


def state(cluster: SlurmCluster, job_id: str) -> str:
    return cluster.run("squeue", "-h", "-t", "all", "-j", job_id, "-o", "%T", check=False).strip()


def field(cluster: SlurmCluster, job_id: str, name: str) -> str:
    words = cluster.run("scontrol", "show", "job", "-o", job_id).split()
    return next(word.removeprefix(f"{name}=") for word in words if word.startswith(f"{name}="))


def runs(pid: int) -> bool:
    """Whether a process lives; one that has ended may still wait for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# What a cluster has


def test_each_node_has_a_name_of_its_own_that_resolves(slurm):
    show = "import socket; name = socket.gethostname(); print(name, socket.gethostbyname(name))"
    lines = slurm.run("srun", "-N4", "python3", "-c", show).splitlines()
    assert sorted(lines) == [f"node{number} 127.0.0.1" for number in range(1, 5)]


def test_a_step_sees_the_gpus_that_it_asked_for(slurm):
    answer = slurm.run("srun", "--gpus-per-node=2", "bash", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert answer == "0,1\n"
    with pytest.raises(RuntimeError, match="Requested node configuration is not available"):
        slurm.run("srun", "--gpus-per-node=9", "true")


def test_a_job_beyond_the_limits_of_its_partition_is_accepted_and_never_starts(slurm):
    job = sbatch(slurm, "true", "-p", "tiny", "--time=00:06:00")
    until(lambda: field(slurm, job, "Reason") == "PartitionTimeLimit", "it will not start")
    wide = sbatch(slurm, "true", "-p", "tiny", "-N2")
    until(lambda: field(slurm, wide, "Reason") == "PartitionNodeLimit", "nor will this")
    slurm.run("scancel", job, wide)
    assert slurm.run("srun", "-p", "tiny", "--time=00:05:00", "hostname").startswith("node")


def test_jobs_do_not_get_the_variables_of_those_who_run_the_tests(slurm, monkeypatch, tmp_path):
    monkeypatch.setenv("PLANTED", "x")
    job = sbatch(slurm, f"env > {tmp_path}/none", "--export=NIL")
    until(lambda: state(slurm, job) == "COMPLETED", "the job has ended")
    assert "PLANTED" not in (tmp_path / "none").read_text()
    job = sbatch(slurm, f"env > {tmp_path}/all", "--export=ALL")
    until(lambda: state(slurm, job) == "COMPLETED", "the job has ended")
    assert "PLANTED=x" in (tmp_path / "all").read_text()


@pytest.mark.slow
def test_a_job_of_the_low_partition_is_requeued_for_one_of_the_high(slurm_forgetful, tmp_path):
    cluster = slurm_forgetful
    script = f"echo start >> {tmp_path}/starts; sleep 600"
    low = sbatch(cluster, script, "-p", "low", "-N4", "--exclusive", "--requeue")
    until(lambda: (tmp_path / "starts").exists(), "the first job runs")
    high = sbatch(cluster, "true", "-p", "high", "-N4", "--exclusive")
    until(lambda: (tmp_path / "starts").read_text() == "start\n" * 2, "it has started again", at_most=300)
    assert field(cluster, low, "Restarts") == "1"
    assert state(cluster, high) in ("COMPLETED", "")
    cluster.run("scancel", low)


def test_negative_control_a_job_of_the_usual_partition_is_not(slurm, tmp_path):
    usual = sbatch(slurm, f"touch {tmp_path}/runs; sleep 600", "-p", "batch", "-N4", "--exclusive")
    until(lambda: (tmp_path / "runs").exists(), "it runs")
    high = sbatch(slurm, "true", "-p", "high", "-N4", "--exclusive")
    until(lambda: field(slurm, high, "Reason") in ("Resources", "Priority"), "the other waits")
    assert (state(slurm, usual), field(slurm, usual, "Restarts")) == ("RUNNING", "0")
    slurm.run("scancel", usual, high)
    slurm.until_idle()


# Memory


def test_accounting_knows_a_job_that_has_ended_and_enforces_limits(slurm_accounting):
    cluster = slurm_accounting
    job = sbatch(cluster, "exit 3", f"--account={ACCOUNT}", "--gpus-per-node=2")
    show = ("sacct", "-X", "-n", "-P", "-j", job, "-o", "State,ExitCode,Account")
    until(lambda: cluster.run(*show) == f"FAILED|3:0|{ACCOUNT}\n", "sacct knows its end")
    with pytest.raises(RuntimeError, match="Invalid account"):
        sbatch(cluster, "true", "--account=nobody")
    held = [sbatch(cluster, "true", f"--qos={QOS}", "--hold") for _ in range(2)]
    with pytest.raises(RuntimeError, match="QOSMaxSubmitJobPerUserLimit"):
        sbatch(cluster, "true", f"--qos={QOS}", "--hold")
    cluster.run("scancel", *held)


def test_without_accounting_sacct_says_so(slurm):
    with pytest.raises(RuntimeError, match="accounting storage is disabled"):
        slurm.run("sacct")
    job = sbatch(slurm, "true", "--account=nobody")
    until(lambda: state(slurm, job) == "COMPLETED", "the job has ended and is still known")


@pytest.mark.slow
def test_a_forgetful_controller_forgets_what_has_ended(slurm_forgetful):
    job = sbatch(slurm_forgetful, "true")
    known = lambda: slurm_forgetful.run("scontrol", "show", "job", job, check=False)  # noqa: E731
    assert known()
    until(lambda: not known(), "it is forgotten", at_most=300)


# Accidents


def test_a_job_outlives_the_controller(slurm_forgetful, tmp_path):
    cluster = slurm_forgetful
    script = f"touch {tmp_path}/runs; until [ -e {tmp_path}/go ]; do sleep 0.05; done; touch {tmp_path}/done"
    job = sbatch(cluster, script)
    until(lambda: (tmp_path / "runs").exists(), "it runs")
    cluster.kill_controller()
    assert "DOWN" in cluster.run("scontrol", "ping", check=False)
    (tmp_path / "go").touch()
    until(lambda: (tmp_path / "done").exists(), "it goes on")
    cluster.start_controller()
    until(lambda: state(cluster, job) in ("COMPLETED", ""), "the controller learns of it")


@pytest.mark.slow
def test_a_job_starts_again_elsewhere_when_its_node_loses_power(slurm_forgetful, tmp_path):
    cluster = slurm_forgetful
    job = sbatch(cluster, f"echo $$ $(hostname) >> {tmp_path}/starts; sleep 600", "--requeue")
    until(lambda: (tmp_path / "starts").exists() and (tmp_path / "starts").read_text(), "it runs")
    pid, node = (tmp_path / "starts").read_text().split()
    assert int(pid) in cluster.pids_on(node)
    cluster.kill_node(node)
    assert not runs(int(pid))
    until(lambda: cluster.states()[node].startswith("down"), "the controller notices", at_most=300)
    until(lambda: len((tmp_path / "starts").read_text().splitlines()) == 2, "it runs again", at_most=300)
    assert (tmp_path / "starts").read_text().split()[3] != node
    cluster.run("scancel", job)
    cluster.start_node(node)
    cluster.until_idle()


def test_the_controller_can_be_told_of_a_dead_node_at_once(slurm, tmp_path):
    job = sbatch(slurm, f"touch {tmp_path}/runs; sleep 600", "-w", "node3", "--no-requeue")
    until(lambda: (tmp_path / "runs").exists(), "it runs")
    slurm.kill_node("node3")
    slurm.report_down("node3")
    until(lambda: state(slurm, job) == "NODE_FAIL", "its node has failed it")
    assert slurm.pids_on("node3") == [] and slurm.states()["node3"].startswith("down")
    slurm.reset()
    assert slurm.run("srun", "-w", "node3", "hostname") == "node3\n"


def test_a_daemon_that_has_died_alone_is_started_again(slurm):
    (daemon,) = [pid for pid in slurm.pids_on("node2") if Path(f"/proc/{pid}/comm").read_text() == "slurmd\n"]
    os.kill(daemon, signal.SIGKILL)
    until(lambda: not runs(daemon), "it has ended")
    slurm.reset()
    assert slurm.run("srun", "-w", "node2", "hostname") == "node2\n"


def test_a_small_disk_is_the_same_everywhere_and_is_full_soon(slurm):
    disk = slurm.small_disk(megabytes=4)
    assert slurm.run("srun", "-N4", "bash", "-c", f"hostname > {disk}/$(hostname); ls -d {disk}") == f"{disk}\n" * 4
    assert sorted(path.read_text().strip() for path in disk.glob("node*")) == list(slurm.nodes)
    with pytest.raises(RuntimeError, match="No space left on device"):
        slurm.run("srun", "-w", "node2", "dd", "if=/dev/zero", f"of={disk}/large", "bs=1M", "count=8", "status=none")
    assert (disk / "large").stat().st_size < 4 << 20


# What is left of it


def test_nothing_is_left_of_a_cluster_that_has_been_left():
    with SlurmCluster(ClusterSpec(nodes=1, gpus=1)) as cluster:
        disk = cluster.small_disk(megabytes=2)
        cluster.run("srun", "-p", "batch", "bash", "-c", "setsid sleep 600 </dev/null &>/dev/null &")
        cluster.run("sbatch", "--output=/dev/null", "--wrap=exec sleep 601")
        until(lambda: _sleeps_of(cluster) >= {"600", "601"}, "both programs run")
        pids = cluster.pids()
    assert not any(runs(pid) for pid in pids)
    assert not cluster.base.exists()
    assert str(disk) not in Path("/proc/self/mounts").read_text()
    assert str(disk) not in subprocess.run(["losetup", "--all"], capture_output=True, text=True, check=True).stdout


def _sleeps_of(cluster: SlurmCluster) -> set[str]:
    found = set()
    for pid in cluster.pids():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if words[0] == b"sleep":
            found.add(words[1].decode())
    return found


def test_nothing_is_left_when_the_tests_are_killed(tmp_path):
    program = (
        "import time; from tests.slurm.cluster import SlurmCluster; from tests.slurm.spec import ClusterSpec\n"
        "with SlurmCluster(ClusterSpec(nodes=1, gpus=1)) as cluster:\n"
        "    print(cluster.base, *cluster.pids(), flush=True)\n"
        "    time.sleep(600)\n"
    )
    root = Path(__file__).resolve().parents[2]
    tests = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root)
    base, *pids = tests.stdout.readline().split()
    assert len(pids) >= 4 and all(runs(int(pid)) for pid in pids)
    os.kill(tests.pid, signal.SIGKILL)
    tests.wait()
    until(lambda: not any(runs(int(pid)) for pid in pids), "all have ended")
    until(lambda: not Path(base).exists(), "its folder is gone")
