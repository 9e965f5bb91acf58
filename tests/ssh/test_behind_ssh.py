"""A laptop submits to a real Slurm through a real sshd. The cluster's files are nowhere on the laptop."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from skills_pipe.artifacts.names import owner_path
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.records.store import Run, RunStore
from tests.pipeline.programs import until
from tests.slurm.availability import need
from tests.slurm.cluster import SlurmCluster
from tests.ssh.login_node import LoginNode, why_no_login_node
from tests.training.tiny import chat_rows, save_tiny_model, write_jsonl

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).parents[2]
NS = str(Path(sys.executable).parent / "ns")

_CONFIG = """\
executor: slurm
account: test
partition: batch
container_runtime: none
env_vars: [MY_TOKEN, "PATH={python}:/usr/bin:/bin"]
ssh_tunnel:
  host: login
  job_dir: {folder}/jobs
  pre_command: export PREPARED=yes
"""

# Two stages on the cluster; each makes a file, the second one from the first.
_TWO_STAGES = """
import sys
from pathlib import Path
from skills_pipe.pipeline.cluster.load import load_cluster
from skills_pipe.pipeline.submit import SubmitFlags, submit
from tests.pipeline.programs import job, make, plan_of, shell
folder, expname, *more = Path(sys.argv[1]), sys.argv[2], *sys.argv[3:]
first, second = folder / "out" / "a.txt", folder / "out" / "b.txt"
argv = shell(f"touch {folder}/runs; until [ -e {folder}/go ]; do sleep 0.05; done") if "hold" in more else make(first)
plan = plan_of(job("a", argv, folder), job("b", make(second), folder, "a"), a=first, b=second)
object.__setattr__(plan, "expname", expname)
submission = submit(plan, load_cluster("far"), flags=SubmitFlags(rerun="rerun" in more))
print("actions", *submission.actions.values())
if "wait" in more:
    print("succeeded", submission.wait().succeeded, *(state.value for state in submission.states().values()))
"""


@dataclass(frozen=True, kw_only=True)
class World:
    """A laptop and a cluster behind a login node.

    Attributes:
        folder: on the cluster only.
    """

    node: LoginNode
    folder: Path

    def ns(self, *words: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """``ns`` on the laptop."""
        return self.node.on_laptop([NS, *words], hidden=self.folder, check=check, variables=variables)

    def python(self, text: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Python on the laptop."""
        variables = {"PYTHONPATH": str(ROOT)}
        argv = [sys.executable, "-c", text, str(self.folder), *words]
        return self.node.on_laptop(argv, hidden=self.folder, check=check, variables=variables)

    def two_stages(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.python(_TWO_STAGES, *words, check=check)

    @property
    def copies(self) -> Path:
        """What the laptop keeps of the records."""
        (folder,) = (self.node.base / "home" / ".skills_pipe" / "clusters" / "login").iterdir()
        return folder / "experiments"

    def run(self, name: str) -> Run:
        """A run as the login node sees it."""
        return RunStore(self.folder / "jobs").find(name)

    def states(self, name: str) -> list[JobState]:
        return [status.state for status in statuses_of(self.run(name)).values()]

    def until_ended(self, name: str) -> None:
        until(lambda: all(state.ended for state in self.states(name)), f"{name} has ended", at_most=300)


@pytest.fixture
def world(slurm: SlurmCluster) -> Iterator[World]:
    need(why_no_login_node())
    with LoginNode(variables={"SLURM_CONF": str(slurm.conf)}) as node:
        folder = node.base / "cluster"
        folder.mkdir()
        configs = node.base / "home" / "cluster_configs"
        configs.mkdir()
        (configs / "far.yaml").write_text(_CONFIG.format(folder=folder, python=Path(sys.executable).parent))
        yield World(node=node, folder=folder)


def test_the_laptop_sees_nothing_of_the_cluster(world):
    """Negative control of all that follows."""
    (world.folder / "file").touch()
    seen = "import os, sys; print(os.listdir(sys.argv[1]), os.access(sys.argv[1], os.W_OK))"
    assert world.python(seen).stdout == "[] False\n"
    assert world.node.on_laptop(["squeue"], hidden=world.folder, check=False).returncode != 0


def test_submit_status_logs_from_a_laptop(world):
    words = (f"--log_dir={world.folder}/logs", "--cluster=far", "--expname=hello")
    said = """echo '["no answer ends"]' > $SKILLS_PIPE_WARNINGS_FILE; echo hello from $(hostname)"""
    told = world.ns("run_cmd", *words, "bash", "-c", said)
    assert re.search(r"hello: queued as \d+", told.stdout)
    world.until_ended("hello")
    shown = world.ns("status", "hello", "--cluster=far").stdout
    assert "hello/run-1" in shown and "succeeded" in shown and "\n      warning: no answer ends\n" in shown
    assert re.search(r"^hello from node\d$", world.ns("logs", "hello", "--cluster=far").stdout, re.MULTILINE)
    assert "hello/run-1" in world.ns("status", "--cluster=far").stdout


def test_a_dry_run_leaves_nothing_on_the_cluster(world):
    told = world.ns("run_cmd", "--cluster=far", "--dry_run", f"--log_dir={world.folder}/logs", "true").stdout
    assert "1 node" in told
    assert list(world.folder.iterdir()) == []


def test_logs_are_followed_until_the_job_has_ended(world):
    command = f"echo first; until [ -e {world.folder}/go ]; do sleep 0.05; done; echo last"
    words = (f"--log_dir={world.folder}/logs", "--cluster=far", "--expname=long")
    world.ns("run_cmd", *words, f"--command={command}")
    until(lambda: self_log(world), "its log is there")
    (world.folder / "go").touch()
    lines = world.ns("logs", "-f", "long", "--cluster=far").stdout.splitlines()
    assert [line for line in lines if line in ("first", "last")] == ["first", "last"]


def self_log(world: World) -> bool:
    return any(path.read_text() for path in world.folder.glob("logs/main_*"))


def test_cancel_from_a_laptop_takes_everything(world):
    world.two_stages("hold", "hold")
    until((world.folder / "runs").exists, "its first job runs")
    assert "a, b" in world.ns("cancel", "hold", "--cluster=far").stdout
    world.until_ended("hold")
    assert set(world.states("hold")) == {JobState.CANCELLED}


def test_a_run_is_waited_for_and_its_stages_are_skipped_the_next_time(world):
    first = world.two_stages("two", "wait").stdout
    assert "actions run run" in first and "succeeded True succeeded succeeded" in first
    assert (world.folder / "out" / "a.txt").read_text() == "x"
    again = world.two_stages("two").stdout
    assert "actions skip skip" in again and f"finished: {world.folder}/out/a.txt" in again
    # What is there is looked at, not remembered.
    (world.folder / "out" / "b.txt").write_text("damaged")
    assert "actions skip restart" in world.two_stages("two", "wait").stdout
    assert (world.folder / "out" / "old_b.txt.1").read_text() == "damaged"


def test_an_output_that_a_live_run_makes_is_refused_and_left_as_it_is(world):
    world.two_stages("live", "hold")
    until((world.folder / "runs").exists, "its first job runs")
    records = {path: path.read_text() for path in (world.folder / "out").iterdir()}
    refused = world.two_stages("other", check=False)
    assert "a.txt is being written by stage 'a' of another run" in refused.stderr
    assert "ns cancel live/run-1" in refused.stderr
    assert {path: path.read_text() for path in (world.folder / "out").iterdir()} == records
    assert list((world.folder / "jobs" / "experiments" / "other").iterdir()) == []
    (world.folder / "go").touch()


def test_a_refused_submission_leaves_outputs_as_they_were(world):
    world.two_stages("two", "wait")
    config = world.node.base / "home" / "cluster_configs" / "far.yaml"
    config.write_text(config.read_text() + "sbatch: {reservation: no-such-reservation}\n")
    before = {path: path.read_bytes() for path in (world.folder / "out").iterdir()}
    refused = world.two_stages("two", "rerun", check=False)
    assert "reservation" in refused.stderr
    assert {path: path.read_bytes() for path in (world.folder / "out").iterdir()} == before
    assert subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True).stdout == ""


def test_the_login_node_and_the_laptop_see_each_others_runs(world, tmp_path):
    world.two_stages("from-laptop", "wait")
    config = {"executor": "slurm", "job_dir": f"{world.folder}/jobs", "account": "test", "container_runtime": "none"}
    (tmp_path / "near.yaml").write_text(json.dumps(config))
    near = on_login_node("status", "from-laptop", f"--cluster={tmp_path}/near.yaml")
    assert "from-laptop/run-1" in near and "succeeded" in near
    words = (f"--cluster={tmp_path}/near.yaml", "--expname=from-login", f"--log_dir={world.folder}/logs")
    on_login_node("run_cmd", *words, "echo", "near")
    world.until_ended("from-login")
    assert "near\n" in world.ns("logs", "from-login", "--cluster=far").stdout


def on_login_node(*words: str) -> str:
    ended = subprocess.run([NS, *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_run_waits_for_one_that_was_submitted_before(world):
    world.two_stages("before", "hold")
    until((world.folder / "runs").exists, "its first job runs")
    words = (f"--log_dir={world.folder}/logs", "--cluster=far", "--expname=after", "--run_after=before")
    world.ns("run_cmd", *words, "echo", "after")
    assert world.states("after") == [JobState.PENDING]
    assert "pending" in world.ns("status", "after", "--cluster=far").stdout
    world.ns("cancel", "before", "--cluster=far")
    world.until_ended("after")
    assert world.states("after") == [JobState.CANCELLED]


def test_secrets_go_to_the_cluster_and_stay_nowhere_else(world):
    words = (f"--log_dir={world.folder}/logs", "--cluster=far", "--expname=secret")
    world.ns("run_cmd", *words, "--command=echo ${#MY_TOKEN} letters", MY_TOKEN="value-of-a-secret")
    world.until_ended("secret")
    assert "17 letters" in world.ns("logs", "secret", "--cluster=far").stdout
    assert files_with(world.node.base / "home", b"value-of-a-secret") == []
    (there,) = files_with(world.folder, b"value-of-a-secret")
    assert there.name == "secrets.env" and stat.S_IMODE(there.stat().st_mode) == 0o600


def files_with(folder: Path, text: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


def test_copies_follow_what_is_removed_on_the_cluster(world):
    world.two_stages("two", "wait")
    assert (world.copies / "two" / "run-1" / "exits" / "a").exists()
    (world.folder / "jobs" / "experiments" / "two" / "run-1" / "exits" / "a").unlink()
    world.ns("status", "two", "--cluster=far")
    assert not (world.copies / "two" / "run-1" / "exits" / "a").exists()
    subprocess.run(["rm", "-r", f"{world.folder}/jobs/experiments/two"], check=True)
    assert "there is no experiment 'two'" in world.ns("status", "two", "--cluster=far", check=False).stderr


@pytest.mark.slow
def test_a_model_is_trained_from_a_laptop(world):
    """A chain and its conversion; the second time everything is finished."""
    save_tiny_model(world.folder / "model", max_position_embeddings=2048)
    write_jsonl(world.folder / "train.jsonl", chat_rows(16))
    words = ["--cluster=far", "--expname=sft", "--num_gpus=0", "--num_training_jobs=2", "--disable_wandb"]
    words += [f"--hf_model={world.folder}/model", f"--training_data={world.folder}/train.jsonl"]
    words += [f"--output_dir={world.folder}/out", "++sft.max_num_steps=2", "++policy.train_global_batch_size=4"]
    world.ns("nemo_rl", "sft", *words, OMP_NUM_THREADS="1")
    until(lambda: all(state.ended for state in world.states("sft")), "it has ended", at_most=300)
    assert world.states("sft") == [JobState.SUCCEEDED, JobState.NOT_NEEDED, JobState.SUCCEEDED]
    assert (world.folder / "out" / "final_hf_model" / "model.safetensors").exists()
    assert "loss" in world.ns("status", "sft", "sft", "--cluster=far").stdout
    again = world.ns("nemo_rl", "sft", *words, OMP_NUM_THREADS="1").stdout
    assert f"finished: {world.folder}/out/final_hf_model" in again and "nothing to do" in again


def test_a_submission_takes_few_round_trips_over_one_connection(world):
    words = (f"--log_dir={world.folder}/logs", "--cluster=far", "--expname=hello", "true")
    world.ns("run_cmd", *words)
    logins = world.node.logins
    assert calls_of(world, "run_cmd", "--dry_run", *words) == 1
    assert calls_of(world, "run_cmd", *words) == 4
    assert world.node.logins == logins


def calls_of(world: World, *words: str) -> int:
    before = world.node.calls
    world.ns(*words)
    return world.node.calls - before


@pytest.mark.slow
@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(True, id="killed"),
        pytest.param(False, id="connection broken", marks=pytest.mark.exhaustive),
    ],
)
def test_a_submission_that_breaks_off_anywhere_is_whole_or_not_there(world, kill):
    """After each call of ssh; then the same command again, until nothing was left to be broken."""
    finished, cancelled = False, set()
    for call in range(1, 12):
        world.node.lose_answer(call, kill=kill)
        killed = world.two_stages("two", "hold", check=False)
        world.node.lose_answer(0, kill=False)
        queued = jobs_in_queue()
        world.ns("status", "two", "--cluster=far", check=False)
        assert jobs_in_queue() in ([], queued) and len(queued) in (0, 2)
        again = world.two_stages("two", "hold", check=False)
        if queued:
            assert "is being written by stage 'a' of another run" in again.stderr
            assert jobs_in_queue() == queued
        else:
            assert "actions run run" in again.stdout
        assert not held_jobs()
        for run in RunStore(world.folder / "jobs").runs("two"):
            if run.submission and str(run) not in cancelled:
                world.ns("cancel", str(run), "--cluster=far")
                cancelled.add(str(run))
        until(lambda: not jobs_in_queue("COMPLETING"), "all are cancelled")
        (world.folder / "runs").unlink(missing_ok=True)
        if killed.returncode == 0:
            finished = True
            break
    assert finished and call > 4


def jobs_in_queue(*more_states: str) -> list[str]:
    """Jobs that wait or run; one that is cancelled while it runs is COMPLETING for a moment, and still told."""
    states = ",".join(["PENDING", "CONFIGURING", "RUNNING", *more_states])
    told = subprocess.run(
        ["squeue", "-h", "-o", "%i", f"--states={states}"], capture_output=True, text=True, check=True
    )
    return sorted(told.stdout.split())


def held_jobs() -> list[str]:
    told = subprocess.run(["squeue", "-h", "-o", "%i %r"], capture_output=True, text=True, check=True)
    return [line for line in told.stdout.splitlines() if "Held" in line]


def test_with_a_changed_host_key_nothing_is_asked_or_submitted(world):
    world.node.know(world.node.base / "other_key.pub")
    words = (f"--log_dir={world.folder}/logs", "--cluster=far", "true")
    for command in (("run_cmd", *words), ("status", "--cluster=far")):
        refused = world.ns(*command, check=False)
        assert refused.returncode == 2 and "its host key has changed" in refused.stderr
        assert refused.stderr.count("\n") <= 2 and "Traceback" not in refused.stderr
    assert list(world.folder.iterdir()) == []


def test_owners_beside_outputs_name_the_run_as_the_cluster_sees_it(world):
    world.two_stages("two", "wait")
    owner = json.loads(owner_path(world.folder / "out" / "a.txt").read_text())
    assert owner["run"] == f"{world.folder}/jobs/experiments/two/run-1"
    assert Run(Path(owner["run"])).submission is not None
