"""Secrets of one command: those that it may have reach its shell, whatever their values look like."""

import subprocess

import pytest

from skills_pipe.pipeline.plan import Command
from skills_pipe.pipeline.scripts.environment import secret_lines
from skills_pipe.pipeline.scripts.render import export_lines

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
