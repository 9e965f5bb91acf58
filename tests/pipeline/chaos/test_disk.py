"""The disk of the checkpoints is full: nothing whole is lost, nothing half is taken for whole, and room is enough."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from skills_pipe.artifacts import manifest
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.records.failures import failure_report
from tests.pipeline.chaos.scenes import ended, words
from tests.pipeline.chaos.training import STEPS, last_step, prepare, train, weights

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture
def small_disk(slurm, tmp_path) -> Iterator[Path]:
    """A folder of two megabytes that all nodes see: they run in mount namespaces that follow this one."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_ends_the_chain_and_the_same_command_goes_on_when_there_is_room(
    small_disk, tmp_path, monkeypatch, capfd
):
    """Two segments in a row get no further, so the third does not try."""
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    chain = train(tmp_path, "chain", jobs=3, output=small_disk)
    assert words(ended(chain)) == ["failed", "failed", "cancelled", "cancelled"]
    assert "No space left on device" in failure_report(chain.run, chain.run.plan, statuses_of(chain.run))
    before = last_step(small_disk)
    for folder in small_disk.glob("checkpoints/step_*"):
        sealed = manifest.read(folder)
        assert sealed is None or not manifest.damage(folder, sealed)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = train(tmp_path, "chain", jobs=1, output=small_disk)
    assert words(ended(again)) == ["succeeded", "succeeded"]
    assert last_step(small_disk) == STEPS > before
    assert weights(small_disk)
