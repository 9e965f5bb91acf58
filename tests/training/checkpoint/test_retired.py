"""Checkpoints that cannot be deleted: training goes on, the user is told once, and it is tried again."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from skills_pipe.training.checkpoint.retention import Retention
from skills_pipe.training.checkpoint.retired import Retired, delete
from tests.training.checkpoint.runs import info_at, new_manager, new_trainee, position_at, train

ONE = Retention(keep_top_k=1)


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """A disk in ``folder``, which even root cannot remove."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        # Its parent may have another name by now.
        (where,) = (
            line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if str(folder.name) in line
        )
        subprocess.run(["umount", where], check=True)


def retired_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(".retired"))


def test_a_checkpoint_that_cannot_be_deleted_is_told_once_and_goes_when_it_can(tmp_path):
    trainee = new_trainee()
    manager = new_manager(tmp_path, retention=ONE)

    def save(step):
        train(trainee, 1)
        manager.save(trainee, info_at(step), position_at(step))
        return manager.take_notices()

    assert save(1) == []
    with mounted(tmp_path / "step_1" / "busy-by-a-mount"):
        (told,) = save(2)
        assert told == (
            f"{tmp_path}/step_1, which retention lets go, moved to {tmp_path}/.tmp-step_1.retired, cannot be deleted "
            "(Device or resource busy); this is tried again after each save"
        )
        assert save(3) == []
        assert retired_of(tmp_path) == [".tmp-step_1.retired"]
        assert sorted(path.name for path in tmp_path.glob("step_*")) == ["step_3"]

    assert save(4) == []
    assert retired_of(tmp_path) == []
    manager.close()


def test_a_job_starts_beside_what_cannot_be_deleted_and_deletes_it_later(tmp_path):
    left = tmp_path / ".tmp-step_1.retired"
    left.mkdir()
    with mounted(left / "busy-at-the-start"):
        manager = new_manager(tmp_path, retention=ONE)
        assert "cannot be deleted" in "".join(manager.take_notices())
    trainee = new_trainee()
    manager.save(trainee, info_at(1), position_at(1))
    assert not left.exists()
    manager.close()


def test_a_checkpoint_that_cannot_even_be_renamed_stays_whole(tmp_path):
    folder = tmp_path / "checkpoints"
    (folder / "step_1").mkdir(parents=True)
    (folder / "step_1" / "file").touch()
    with immutable(folder / "step_1"):
        (told,) = Retired(folder).delete([1])
        assert f"{folder}/step_1, which retention lets go, cannot be deleted (Operation not permitted)" in told
        assert (folder / "step_1" / "file").exists()
    assert Retired(folder).delete([1]) == []
    assert list(folder.iterdir()) == []


def test_what_can_be_deleted_beside_a_refusal_is(tmp_path):
    (tmp_path / "doomed" / "a").mkdir(parents=True)
    (tmp_path / "doomed" / "z").mkdir()
    with mounted(tmp_path / "doomed" / "in-the-middle"):
        assert delete(tmp_path / "doomed").strerror == "Device or resource busy"
        assert [path.name for path in (tmp_path / "doomed").iterdir()] == ["in-the-middle"]


@contextlib.contextmanager
def immutable(folder: Path) -> Iterator[None]:
    """A folder that even root can neither rename nor remove."""
    if subprocess.run(["chattr", "+i", folder], capture_output=True, check=False).returncode:
        pytest.skip("the file system has no immutable folders")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", folder], check=True)
