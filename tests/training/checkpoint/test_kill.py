import subprocess

import pytest

from tests.training.exhaustive import mostly_exhaustive
from tests.training.launch import ROOT, environment, python


def killed_saves(folder, *modes):
    """How many kills a save can be hit by; each of them left a whole checkpoint."""
    command = python("tests.training.checkpoint.killed_save", str(folder), *modes)
    ended = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    return int(ended.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("mode", mostly_exhaustive(["add", "replace", "background"], ["background"]))
def test_kill_9_at_every_operation_of_a_save_leaves_a_whole_checkpoint(tmp_path, mode):
    # The kill reached every file of a checkpoint: fewer operations would mean that the test looks elsewhere.
    assert killed_saves(tmp_path / "checkpoints", mode) > 30


@pytest.mark.slow
@pytest.mark.parametrize("mode", mostly_exhaustive(["add", "background"], ["background"]))
def test_kill_9_at_any_byte_of_a_save_leaves_a_whole_checkpoint(tmp_path, mode):
    assert killed_saves(tmp_path / "checkpoints", mode, "bytes") > 20
