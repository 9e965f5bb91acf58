"""Several commands in one job on a real Slurm: steps side by side, on one node and on more, in containers and not."""

import json
import os
import re
import shutil
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from skills_pipe.pipeline.cli import eval, main, run_cmd, start_server
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.records.store import RunStore
from tests.pipeline.programs import until

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SERVER = Path(__file__).with_name("model_server.py")
SANDBOX = Path(__file__).parents[2] / "containers" / "sandbox"
ASK = (
    "import os, urllib.request as http\n"
    "print(http.urlopen(os.environ['SKILLS_PIPE_SERVER_ADDRESS'] + '/v1/models').read().decode())\n"
)


@dataclass(frozen=True)
class World:
    """A cluster configuration, a folder of this machine, and the same folder as jobs see it."""

    path: Path
    folder: Path
    inside: str

    def submit(self, *, expname="job", **options):
        """``ns run_cmd``."""
        return run_cmd(cluster=str(self.path), log_dir=f"{self.inside}/logs", expname=expname, **options)

    def run(self, **options):
        """The same, waited for; the statuses of its jobs."""
        return self.ended(self.submit(**options))

    def ended(self, submission):
        """The statuses of all jobs when they have ended."""
        until(lambda: all(state.ended for state in submission.states().values()), "all jobs have ended", at_most=120)
        return list(statuses_of(RunStore(self.folder / "jobs").find(submission.expname)).values())

    def log(self, member="main", job="job"):
        """The newest log of a member."""
        logs = sorted((self.folder / "logs").glob(f"{member}_{job}_*_srun.log"), key=os.path.getmtime)
        return logs[-1].read_text() if logs else ""


def _world(tmp_path: Path, *lines: str, inside: str) -> World:
    folder = tmp_path / "workspace"
    for name in ("logs", "jobs", "model"):
        (folder / name).mkdir(parents=True)
    shutil.copy(SERVER, folder / "server.py")
    (folder / "ask.py").write_text(ASK)
    text = ["executor: slurm", f"job_dir: {folder}/jobs", "account: root", "partition: batch", "cpu_partition: cpu"]
    text += ["default_timeout: 10:00", "skip_hf_home_check: true", *lines]
    (tmp_path / "here.yaml").write_text("\n".join(text) + "\n")
    return World(path=tmp_path / "here.yaml", folder=folder, inside=inside)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working folder that is no repository, and no settings of the one who runs the tests."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("NEMO_SKILLS_CONFIG", "NEMO_SKILLS_CONFIG_DIR", "NEMO_SKILLS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def bare(slurm, tmp_path) -> World:
    """Without containers."""
    return _world(tmp_path, "container_runtime: none", inside=str(tmp_path / "workspace"))


@pytest.fixture
def contained(slurm, pyxis, tmp_path) -> World:
    """With the flags of pyxis, in the small image."""
    mounts = [f"{tmp_path}/workspace:/workspace", *pyxis.mounts]
    lines = [f"containers: {{nemo-skills: {pyxis.folder}, sandbox: {pyxis.folder}}}", f"mounts: {json.dumps(mounts)}"]
    return _world(tmp_path, "container_runtime: pyxis", *lines, inside="/workspace")


def serve(world: World, **options):
    """Options of the server of the tests."""
    base = {"model": f"{world.inside}/model", "server_type": "generic"}
    return base | {"server_entrypoint": f"{world.inside}/server.py"} | options


def gone(job_id: str) -> bool:
    """Whether Slurm has no step of a job any more."""
    answer = subprocess.run(["squeue", "-h", "-s", "-j", job_id], capture_output=True, text=True, check=False)
    return answer.stdout == ""


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_command_asks_the_server_in_its_job(bare, nodes):
    """The server has one of the nodes; on two, the command runs on each and finds it by name."""
    (status,) = bare.run(**serve(bare), command=f"hostname; python {bare.inside}/ask.py", num_nodes=nodes)
    assert status.state is JobState.SUCCEEDED, bare.log() + bare.log("server")
    assert bare.log().count(f"{bare.inside}/model") == nodes
    assert {line for line in bare.log().splitlines() if line.startswith("node")} == {
        f"node{number}" for number in range(1, nodes + 1)
    }
    assert gone(status.job_id)


def test_a_command_asks_the_server_in_containers(contained):
    (status,) = contained.run(**serve(contained), command="python3 /workspace/ask.py")
    assert status.state is JobState.SUCCEEDED, contained.log() + contained.log("server")
    assert "/workspace/model" in contained.log()


LOOK = """
import json, os, urllib.request as http
code = "import os; print([path for path in ('/workspace/look.py', '/nemo_run/scripts') if os.path.exists(path)], 6 * 7)"
where = os.environ["NEMO_SKILLS_SANDBOX_HOST"] + ":" + os.environ["NEMO_SKILLS_SANDBOX_PORT"]
body = json.dumps({"generated_code": code}).encode()
print(json.loads(http.urlopen("http://" + where + "/execute", body).read())["stdout"])
print("the command has", os.environ["HF_TOKEN"])
"""


@pytest.fixture
def sandboxed(slurm, pyxis, tmp_path) -> World:
    """With the sandbox of this project as the container of that name, on the small image."""
    image = tmp_path / "sandbox"
    subprocess.run(["cp", "-a", str(pyxis.folder), str(image)], check=True)
    (image / "opt/sandbox").mkdir(parents=True)
    shutil.copy(SANDBOX / "server.py", image / "opt/sandbox")
    shutil.copy(SANDBOX / "start-with-nginx.sh", image)
    mounts = [f"{tmp_path}/workspace:/workspace", *pyxis.mounts]
    lines = [f"containers: {{nemo-skills: {pyxis.folder}, sandbox: {image}}}", f"mounts: {json.dumps(mounts)}"]
    return _world(tmp_path, "container_runtime: pyxis", *lines, inside="/workspace")


@pytest.mark.parametrize(
    ("options", "seen"),
    [({}, "[] 42"), ({"keep_mounts_for_sandbox": True}, "['/workspace/look.py', '/nemo_run/scripts'] 42")],
)
def test_a_sandbox_runs_code_that_sees_files_only_when_it_is_asked_for(sandboxed, monkeypatch, options, seen):
    monkeypatch.setenv("HF_TOKEN", "a-planted-token")
    (sandboxed.folder / "look.py").write_text(LOOK)
    (status,) = sandboxed.run(command="python3 /workspace/look.py", with_sandbox=True, **options)
    assert status.state is JobState.SUCCEEDED, sandboxed.log() + sandboxed.log("sandbox")
    assert seen in sandboxed.log()
    assert "the command has a-planted-token" in sandboxed.log()


def test_an_evaluation_asks_the_server_in_its_job(bare):
    words = ["arithmetic", f"--data_dir={bare.inside}/data", "++arithmetic.test_count=12", "++arithmetic.train_count=8"]
    assert main(["prepare_data", *words]) == 0
    submission = eval(
        cluster=str(bare.path), benchmarks="arithmetic", data_dir=f"{bare.inside}/data",
        output_dir=f"{bare.inside}/out", **serve(bare, server_gpus=2),
    )  # fmt: skip
    states = {status.job: status.state for status in bare.ended(submission)}
    assert set(states.values()) == {JobState.SUCCEEDED}, states
    rows = (bare.folder / "out/eval-results/arithmetic/output.jsonl").read_text().splitlines()
    assert [json.loads(row)["symbolic_correct"] for row in rows] == [
        json.loads(row)["operation"] == "+" for row in rows
    ]


def test_a_server_that_dies_takes_the_job_down_and_is_named(bare):
    (status,) = bare.run(**serve(bare, server_args="--no-such-flag"), command="sleep 600")
    assert (status.state, status.reason) == (JobState.FAILED, "server died with exit code 2")
    assert "unrecognized arguments" in bare.log("server")
    assert gone(status.job_id)


def test_the_result_of_the_command_is_that_of_the_job(bare):
    (status,) = bare.run(**serve(bare), command="exit 7")
    assert status.state is JobState.FAILED and "server" not in status.reason
    assert RunStore(bare.folder / "jobs").find("job").exit_code("job") == 7


def test_steps_share_the_gpus_of_their_job_without_sharing_one(bare):
    """Slurm itself gives steps that overlap the same ones."""
    show = "echo GPUS=$CUDA_VISIBLE_DEVICES; sleep 1"
    (status,) = bare.run(command=[show] * 3, num_gpus=[2, 3, 0])
    assert status.state is JobState.SUCCEEDED
    seen = [bare.log(name).split("GPUS=")[1].split() for name in ("main", "main_1", "main_2")]
    assert [len(own[0].split(",")) if own else 0 for own in seen] == [2, 3, 0]
    assert not set(seen[0][0].split(",")) & set(seen[1][0].split(","))


def test_processes_on_every_node(bare):
    (status,) = bare.run(command="echo $(hostname) $SLURM_PROCID", num_nodes=2, num_tasks=2)
    assert status.state is JobState.SUCCEEDED
    assert sorted(bare.log().splitlines()) == ["node1 0", "node1 1", "node2 2", "node2 3"]


def test_a_job_that_is_cancelled_blames_nobody_and_leaves_nothing(bare):
    submission = bare.submit(command=f"touch {bare.inside}/runs; sleep 600", **serve(bare))
    until((bare.folder / "runs").exists, "the command runs", at_most=60)
    submission.cancel()
    (status,) = bare.ended(submission)
    assert status.state is JobState.CANCELLED
    assert "server" not in status.reason
    until(lambda: gone(status.job_id), "no step is left")


def test_two_jobs_on_one_node_have_servers_of_their_own(bare):
    (bare.folder / "other").mkdir()
    ask = f"until [ -e {bare.inside}/both ]; do sleep 0.2; done; python {bare.inside}/ask.py"
    submissions = [
        bare.submit(
            expname=name, command=f"touch {bare.inside}/{name}; {ask}", **serve(bare, model=f"{bare.inside}/{model}")
        )
        for name, model in (("one", "model"), ("two", "other"))
    ]
    until(lambda: (bare.folder / "one").exists() and (bare.folder / "two").exists(), "both run", at_most=60)
    (bare.folder / "both").touch()
    for submission in submissions:
        assert [status.state for status in bare.ended(submission)] == [JobState.SUCCEEDED]
    assert f"{bare.inside}/model" in bare.log(job="one") and f"{bare.inside}/other" in bare.log(job="two")


def test_a_retry_is_not_needed_when_an_earlier_one_ended_well(bare):
    command = f"echo x >> {bare.inside}/tries; test $(wc -l < {bare.inside}/tries) -ge 2"
    submission = bare.submit(command=command, dependent_jobs=2)
    assert {status.job: status.state.value for status in bare.ended(submission)} == {
        "job-0": "failed",
        "job-1": "succeeded",
        "job-2": "not needed",
        "job-one-of-them": "succeeded",
    }
    assert submission.succeeded


def test_a_server_of_its_own_serves_until_it_is_cancelled(bare):
    submission = start_server(cluster=str(bare.path), log_dir=f"{bare.inside}/logs", expname="job", **serve(bare))
    until(lambda: "is served at" in bare.log(), "the address is told", at_most=60)
    node, port = re.search(r"http://(\w+):(\d+)/v1", bare.log()).groups()
    assert node == "node1", "others than the job can find it"
    # The nodes of the tests are all on this machine, which does not know their names.
    models = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models").read())
    assert models["data"][0]["id"] == f"{bare.inside}/model"
    submission.cancel()
    (status,) = bare.ended(submission)
    assert status.state is JobState.CANCELLED
    until(lambda: gone(status.job_id), "no step is left")
