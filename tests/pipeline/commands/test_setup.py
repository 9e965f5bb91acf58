"""``ns setup``: a cluster configuration by flags or by questions, tried out as soon as it is written."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from skills_pipe.pipeline.cli import main, setup
from skills_pipe.pipeline.cluster.config import ContainerRuntime, ExecutorKind
from skills_pipe.pipeline.cluster.load import load_cluster

LOCAL = ["setup", "--name=here", "--executor=local", "--yes"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEMO_SKILLS_CONFIG_DIR", raising=False)


def slurm_flags(tmp_path: Path, **changes: str) -> list[str]:
    flags = {"name": "mine", "executor": "slurm", "job_dir": str(tmp_path), "partition": "batch"}
    flags |= {"container_runtime": "none", "account": "root"}
    return ["setup", "--yes", *(f"--{name}={value}" for name, value in (flags | changes).items())]


# --- by flags


def test_flags_make_a_configuration(tmp_path, capsys):
    assert main([*LOCAL, f"--job_dir={tmp_path}/records", "--env=GREETING=a=b", "--env=HF_TOKEN"]) == 0
    config = load_cluster("here")
    assert config.executor is ExecutorKind.LOCAL
    assert config.job_dir == f"{tmp_path}/records"
    assert [(variable.name, variable.value) for variable in config.env] == [("GREETING", "a=b"), ("HF_TOKEN", None)]
    told = capsys.readouterr().out
    assert "cluster_configs/here.yaml is written" in told
    assert "next: ns nemo_rl sft --cluster=here" in told


def test_everything_that_can_be_given_reads_back(tmp_path):
    flags = slurm_flags(
        tmp_path, container_runtime="pyxis", default_timeout="04:00:00", qos="long", cpu_partition="cpu", host="login"
    )
    main([*flags, "--container=nemo-rl=/i/rl.sqsh", "--mount=/a:/b:ro", "--mount=/c:/d", "--env=HF_HOME=/d"])
    config = load_cluster("mine")
    assert (config.partition, config.cpu_partition, config.qos) == ("batch", "cpu", "long")
    assert config.container_runtime is ContainerRuntime.PYXIS
    assert config.containers == {"nemo-rl": "/i/rl.sqsh"}
    assert [(mount.source, mount.read_only) for mount in config.mounts] == [("/a", True), ("/c", False)]
    assert config.time_limit("batch") == "0-04:00:00"
    assert config.ssh_tunnel is not None and config.ssh_tunnel.host == "login"


def test_all_that_is_missing_is_named_in_one_line(capsys):
    assert main(["setup", "--executor=slurm", "--yes"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: --name, --job_dir, --partition, --container_runtime are missing")
    assert len(told.splitlines()) == 1
    assert not Path("cluster_configs").exists()


def test_a_configuration_is_replaced_only_when_asked_for(capsys):
    assert main(LOCAL) == 0
    before = Path("cluster_configs/here.yaml").read_text()
    assert main([*LOCAL, "--env=A=1"]) == 2
    assert "here.yaml is there already (--name): choose another name, or add --overwrite" in capsys.readouterr().err
    assert Path("cluster_configs/here.yaml").read_text() == before
    assert main([*LOCAL, "--env=A=1", "--overwrite"]) == 0
    assert "here.yaml is replaced" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--mount=data", "mount 'data' is not understood (--mount)"),
        ("--env=MY_TOKEN=x", "the value of MY_TOKEN would stand in a file (--env)"),
        ("--container=nemo-rl", "'nemo-rl' names no image (--container)"),
        ("--name=a/b", "'a/b' cannot be the name of a file (--name)"),
        ("--job_dir=here", "job_dir must be an absolute path"),
        ("--default_timeout=soon", "'soon' is not a time limit"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(flag, told, tmp_path, capsys):
    name = flag.partition("=")[0]
    rest = [word for word in slurm_flags(tmp_path) if not word.startswith(f"{name}=")]
    assert main([*rest, flag]) == 2
    assert told in capsys.readouterr().err
    assert not Path("cluster_configs").exists()


def test_the_folder_can_be_chosen(tmp_path):
    assert main([*LOCAL, f"--config_dir={tmp_path}/configs"]) == 0
    assert load_cluster("here", f"{tmp_path}/configs").name == "here"


def test_the_python_function_takes_lists():
    assert setup(name="here", executor="local", env=["A=1", "B=2"], yes=True) == 0
    assert [variable.name for variable in load_cluster("here").env] == ["A", "B"]


def test_it_is_tried_out(tmp_path, capsys):
    Path("file").touch()
    assert main([*LOCAL, f"--job_dir={tmp_path}/file/records"]) == 2
    told = capsys.readouterr().out
    assert f"no records can be kept in {tmp_path}/file/records" in told
    assert "correct cluster_configs/here.yaml, then: ns check --cluster=here" in told


@pytest.mark.slurm
def test_it_is_tried_out_on_the_cluster(slurm, tmp_path, capsys):
    assert main(slurm_flags(tmp_path)) == 0
    assert "to start at" in capsys.readouterr().out
    assert main([*slurm_flags(tmp_path, partition="nope"), "--overwrite"]) == 2
    assert "there is no partition 'nope' (partition of cluster 'mine')" in capsys.readouterr().out


# --- by questions


def converse(words: list[str], answers: list[str]) -> tuple[int, str]:
    """Run ``ns`` on a terminal that types ``answers``; its exit code and all that it printed."""
    keyboard, terminal = pty.openpty()
    argv = [sys.executable, "-m", "skills_pipe.pipeline.cli", *words]
    process = subprocess.Popen(argv, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    os.close(terminal)
    os.write(keyboard, "".join(f"{answer}\n" for answer in answers).encode())
    out, _ = process.communicate(timeout=120)
    os.close(keyboard)
    return process.returncode, out


def test_questions_make_a_configuration_of_this_machine():
    code, told = converse(["setup"], ["home", "local"])
    assert code == 0, told
    assert load_cluster("home").is_local


@pytest.mark.slurm
def test_slurm_offers_its_partitions_and_accounts(slurm_accounting, tmp_path):
    place = ["", "slurm", ""]
    jobs = [str(tmp_path), "reserch", "research", "", "cpu", "soon", "30"]
    code, told = converse(["setup"], [*place, *jobs, "none"])
    assert code == 0, told
    assert "Account (research, root)" in told and "there is no 'reserch'" in told
    assert "Partition of jobs (batch, cpu, tiny" in told and "'soon' is not a time limit" in told
    config = load_cluster("slurm")
    assert (config.account, config.partition, config.cpu_partition) == ("research", "batch", "cpu")
    assert config.time_limit("batch") == "0-00:30:00"


def test_a_file_that_is_there_is_asked_about():
    assert converse(["setup"], ["home", "local"])[0] == 0
    code, told = converse(["setup"], ["home", "local", "n"])
    assert code == 2 and "home.yaml is there already. Replace it?" in told
    assert converse(["setup"], ["home", "local", "y"])[0] == 0


def test_flags_answer_their_questions():
    code, told = converse(["setup", "--name=home", "--executor=local"], [])
    assert code == 0 and "Name of the configuration" not in told
