import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint import owner as owners
from skills_pipe.training.checkpoint.owner import Owner
from tests.training.checkpoint.runs import info_at, new_manager, new_trainee, position_at, save_steps

ROOT = Path(__file__).parents[3]
CLAIM = """
import sys
from pathlib import Path
from skills_pipe.training.checkpoint import owner
owner.claim(Path(sys.argv[1]))
print("claimed", flush=True)
sys.stdin.read()
"""


def claiming_process(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "claimed\n"
    return process


def test_a_folder_in_which_a_live_process_trains_is_refused_until_it_ends(tmp_path):
    other = claiming_process(tmp_path)
    with pytest.raises(CheckpointError, match=f"process {other.pid} is still training into"):
        owners.claim(tmp_path)
    other.kill()
    other.communicate()
    assert owners.claim(tmp_path) == Owner.current()


def test_a_later_process_of_the_same_number_is_not_the_owner(tmp_path):
    mine = Owner.current()
    assert mine.is_running_here()
    assert not dataclasses.replace(mine, started="another boot:1").is_running_here()
    assert not dataclasses.replace(mine, host="another-host").is_running_here()


def test_a_writer_that_lost_the_folder_publishes_nothing(tmp_path):
    save_steps(tmp_path, 1)
    manager = new_manager(tmp_path)
    record = tmp_path / ".owner-training.json"
    requeued = json.loads(record.read_text()) | {"host": "node7", "pid": 12, "job": "345-r1"}
    record.write_text(json.dumps(requeued))
    with pytest.raises(CheckpointError, match=r"now belongs to 345-r1 \(process 12\)"):
        manager.save(new_trainee(), info_at(2), position_at(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".owner-training.json", "step_1"]
    manager.close()
    assert json.loads(record.read_text()) == requeued


def test_a_slurm_job_names_itself_with_its_restarts(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert Owner.current().label == "job-77-r0"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert Owner.current().label == "job-77-r2"


def test_temporaries_of_dead_writers_are_removed_at_the_start(tmp_path):
    save_steps(tmp_path, 1)
    for name in (".tmp-step_2.job-77-r0", ".tmp-step_2.elsewhere-99"):
        (tmp_path / name / "policy").mkdir(parents=True)
    new_manager(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".owner-training.json", "step_1"]


def test_a_replacement_cut_between_its_two_renames_is_undone(tmp_path):
    save_steps(tmp_path, 1)
    (tmp_path / "step_1").rename(tmp_path / "old_step_1")
    assert new_manager(tmp_path).resume(new_trainee()).info.total_steps == 1
