import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["add", "replace"])
def test_kill_9_at_every_operation_of_a_save_leaves_a_whole_checkpoint(tmp_path, mode):
    folder = tmp_path / "checkpoints"
    command = [sys.executable, "-m", "tests.training.checkpoint.killed_save", str(folder), mode]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, ended.stderr
    # The kill reached every file of a checkpoint: fewer operations would mean that the test looks elsewhere.
    assert int(ended.stdout) > 30
