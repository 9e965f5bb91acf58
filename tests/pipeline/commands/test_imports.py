"""A command waits only for what it needs: its help and its mistypings come without the trainer's configuration."""

import pkgutil
import subprocess
import sys

import pytest

import skills_pipe.pipeline.commands as commands

LISTS = """
import importlib, sys
importlib.import_module(sys.argv[1])
print(*sorted(name for name in sys.modules if name.startswith(("skills_pipe.training", "omegaconf", "torch"))))
"""


def brought_by(module: str) -> list[str]:
    listed = subprocess.run([sys.executable, "-c", LISTS, module], capture_output=True, text=True, check=True)
    return listed.stdout.split()


@pytest.mark.parametrize("command", [found.name for found in pkgutil.iter_modules(commands.__path__)])
def test_a_command_brings_nothing_of_the_trainer(command):
    assert brought_by(f"{commands.__name__}.{command}") == []


def test_what_reads_the_configuration_would_be_noticed():
    assert "skills_pipe.training.config" in brought_by("skills_pipe.training.config.load")
