"""A server in the job of its client, on this machine: an evaluation and a command that really ask it."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from skills_pipe.errors import JobFailed, PlanError
from skills_pipe.pipeline.cli import eval, main, run_cmd
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.records.store import RunStore
from tests.pipeline.programs import until

SERVER = Path(__file__).with_name("model_server.py")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working folder with a model, which is only a name to this server, and data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "jobs"))
    for name in ("NEMO_SKILLS_CONFIG", "NEMO_SKILLS_CONFIG_DIR", "NEMO_SKILLS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "model").mkdir()


def evaluate(**options):
    base = {"model": "./model", "server_type": "generic", "server_entrypoint": str(SERVER), "benchmarks": "arithmetic"}
    return eval(**(base | {"output_dir": "out", "data_dir": "data"} | options))


def test_an_evaluation_asks_the_server_that_runs_in_its_job(tmp_path):
    main(["prepare_data", "arithmetic", "--data_dir=data", "++arithmetic.test_count=12", "++arithmetic.train_count=8"])
    submission = evaluate()
    assert submission.succeeded
    rows = [
        json.loads(line) for line in (tmp_path / "out/eval-results/arithmetic/output.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 12
    # The server can only add.
    assert [row["symbolic_correct"] for row in rows] == [row["operation"] == "+" for row in rows]
    assert "serving" in (tmp_path / "out/eval-logs/server_eval-arithmetic_local-1.log").read_text()
    assert set(evaluate().actions.values()) >= {"skip"}, "the server does not start for nothing"


def test_a_command_finds_the_server_in_its_variables(tmp_path, capfd):
    (tmp_path / "ask.py").write_text(
        "import os, urllib.request as http\n"
        "print(http.urlopen(os.environ['SKILLS_PIPE_SERVER_ADDRESS'] + '/v1/models').read().decode())\n"
    )
    options = ["--model=./model", "--server_type=generic", f"--server_entrypoint={SERVER}"]
    code = main(["run_cmd", *options, "python", "ask.py"])
    assert code == 0
    assert str(tmp_path / "model") in capfd.readouterr().out


def test_a_server_that_dies_is_named(tmp_path):
    with pytest.raises(JobFailed, match="server died with exit code 2"):
        run_cmd(
            command="sleep 100", model="./model", server_type="generic", server_entrypoint=f"{SERVER} --no-such-flag"
        )
    (status,) = statuses_of(RunStore(tmp_path / "jobs").latest("script")).values()
    assert (status.state, status.exit_code, status.reason) == (JobState.FAILED, 2, "server died with exit code 2")


def test_the_processes_of_a_command_tell_each_other_apart(tmp_path, capfd):
    assert main(["run_cmd", "--num_tasks=3", "--command=echo $SLURM_PROCID of $SLURM_NTASKS"]) == 0
    said = capfd.readouterr().out.splitlines()
    assert sorted(line for line in said if " of " in line) == ["0 of 3", "1 of 3", "2 of 3"]


def test_dependent_jobs_stop_at_the_first_that_ends_well(tmp_path):
    submission = run_cmd(
        command=f"echo x >> {tmp_path}/tries; test $(wc -l < {tmp_path}/tries) -ge 2", dependent_jobs=3
    )
    assert {name: state.value for name, state in submission.states().items()} == {
        "script-0": "failed",
        "script-1": "succeeded",
        "script-2": "not needed",
        "script-3": "not needed",
        "script-one-of-them": "succeeded",
    }
    assert submission.succeeded
    assert (tmp_path / "tries").read_text().split() == ["x", "x"]


def test_negative_control_none_of_them_ends_well(tmp_path):
    with pytest.raises(JobFailed, match="exit code 3"):
        run_cmd(command=f"echo x >> {tmp_path}/tries; exit 3", dependent_jobs=1)
    assert (tmp_path / "tries").read_text().split() == ["x", "x"]


def test_a_sandbox_needs_a_container():
    with pytest.raises(PlanError, match="a sandbox needs a container"):
        run_cmd(command="true", with_sandbox=True)


def test_ctrl_c_takes_the_server_along(tmp_path):
    run = [sys.executable, "-m", "skills_pipe.pipeline.cli", "run_cmd", "--model=./model", "--server_type=generic"]
    line = [
        *run,
        f"--server_entrypoint={SERVER}",
        "--command=echo $SKILLS_PIPE_SERVER_PORT > told; mv told port; sleep 600",
    ]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until((tmp_path / "port").exists, "the command runs, and has told the port")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 128 + signal.SIGINT
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int((tmp_path / "port").read_text())))
    (status,) = statuses_of(RunStore(tmp_path / "jobs").latest("script")).values()
    assert status.state is JobState.CANCELLED and "server" not in status.reason


def test_a_job_whose_script_is_killed_leaves_no_server_behind(tmp_path):
    """As the kernel does when memory runs out."""
    parricide = "echo $SKILLS_PIPE_SERVER_PORT > port; kill -9 $PPID; sleep 600"
    with pytest.raises(JobFailed, match="SIGKILL"):
        run_cmd(command=parricide, model="./model", server_type="generic", server_entrypoint=str(SERVER))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int((tmp_path / "port").read_text())))
