"""What a batch script begins with: a clean environment; and the secrets of one command, whatever they look like."""

import subprocess
from pathlib import Path

import pytest

from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.plan import Command
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.scripts.environment import prologue, secret_lines
from skills_pipe.pipeline.scripts.render import export_lines
from skills_pipe.pipeline.scripts.setting import Setting
from tests.pipeline.programs import job, plan_of, shell

SECRETS = {
    "HF_TOKEN": 'it\'s "quoted" $HOME `id`',
    "MULTI_KEY": "first\nexport HF_TOKEN=stolen\nlast",
    "EMPTY_KEY": "",
    "OTHER_TOKEN": "other",
}


@pytest.fixture
def seen(tmp_path):
    """The variables of a program that starts behind the lines for a command."""
    (tmp_path / "secrets.env").write_text("\n".join(export_lines(SECRETS.items())) + "\n")

    def run(allowed):
        lines = [f"run={tmp_path}", *secret_lines(Command(argv=("env",), secrets=allowed)), "exec env -0"]
        ended = subprocess.run(["bash", "-uc", "\n".join(lines)], capture_output=True, check=True, env={"PATH": "/bin"})
        pairs = dict(pair.split("=", 1) for pair in ended.stdout.decode().split("\0") if pair)
        return {name: value for name, value in pairs.items() if name in SECRETS}

    return run


def test_by_default_a_command_gets_all(seen):
    assert seen(None) == SECRETS


@pytest.mark.parametrize("allowed", [("HF_TOKEN",), ("MULTI_KEY", "EMPTY_KEY"), ("NOT_SET", "OTHER_TOKEN")])
def test_a_list_gives_what_it_names(seen, allowed):
    assert seen(allowed) == {name: SECRETS[name] for name in allowed if name in SECRETS}


def test_an_empty_list_gives_none(seen):
    assert seen(()) == {}


def test_a_run_without_secrets_has_no_file_to_read(tmp_path):
    script = "\n".join([f"run={tmp_path}", *secret_lines(Command(argv=("a",), secrets=("X",))), "echo on"])
    ended = subprocess.run(["bash", "-uc", script], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("on\n", "")


def test_secrets_of_a_command_stand_in_no_line():
    assert not any(value in line for line in secret_lines(Command(argv=("a",))) for value in SECRETS.values() if value)


# The beginning of a batch script


@pytest.fixture
def begin(tmp_path):
    """Runs the beginning of a script, and then some lines, in an environment."""
    plan = plan_of(job("a", shell("true"), tmp_path))
    run = Run(tmp_path / "run-1")
    run.folder.mkdir()
    run.make_folders()
    cluster = ClusterConfig(name="test", executor=ExecutorKind.SLURM, job_dir=str(tmp_path))
    setting = Setting(job=plan.jobs[0], plan=plan, cluster=cluster, run=run)

    def begin(*lines, **environment):
        script = "\n".join([*prologue(setting), *lines])
        argv = ["/bin/bash", "-c", script]
        ended = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert ended.stderr == ""
        return ended.stdout

    begin.run = run
    return begin


LOGIN = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/home/somebody",
    "HF_TOKEN": "of the login shell",
    "BASH_FUNC_module%%": "() { echo; }",
    "SLURM_JOB_ID": "7",
    "CUDA_VISIBLE_DEVICES": "0,1",
    "LC_ALL": "C",
}


def test_of_a_login_shell_whose_variables_slurm_has_read_none_but_the_usual_stay(begin):
    """An old Slurm takes ``--export=NIL`` for a list of names, and adds what the user's profile sets."""
    seen = begin("env", SLURM_GET_USER_ENV="1", **LOGIN)
    assert "HF_TOKEN" not in seen and "module" not in seen
    for name in ("PATH", "HOME", "SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES", "LC_ALL"):
        assert f"{name}={LOGIN[name]}\n" in seen


def test_what_slurm_and_its_plugins_have_set_stays_where_no_login_shell_was_read(begin):
    assert "SET_BY_A_PLUGIN=1\n" in begin("env", SET_BY_A_PLUGIN="1", PATH="/usr/bin:/bin")


def test_without_any_environment_there_are_a_path_a_user_and_a_home(begin):
    told = begin('echo "$USER $HOME"; env | grep -c -E "^(PATH|USER|HOME)="').split()
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert told == [user, str(Path("~" + user).expanduser()), "3"]


def test_a_job_that_is_killed_before_its_command_has_not_ended_well(begin):
    """Its exit code would be that of the last line, which went well."""
    begin("true", "kill -TERM $$", "true", PATH="/usr/bin:/bin")
    assert begin.run.exit_code("a") == 143


def test_negative_control_one_that_is_not_has(begin):
    begin("true", PATH="/usr/bin:/bin")
    assert begin.run.exit_code("a") == 0
