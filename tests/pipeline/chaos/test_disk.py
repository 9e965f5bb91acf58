"""The disk of the checkpoints is full: nothing whole is lost, nothing half is taken for whole, and room is enough."""

from __future__ import annotations

import shutil

import pytest

from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.records.failures import failure_report
from tests.pipeline.chaos.scenes import ended, words
from tests.pipeline.chaos.training import STEPS, last_step, prepare, train, weights

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_a_full_disk_ends_the_chain_and_the_same_command_goes_on_when_there_is_room(slurm, tmp_path, monkeypatch):
    """No checkpoint fits, but logs do: the trainer says so, and no other segment tries in vain."""
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    disk = slurm.small_disk(megabytes=24)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - (300 << 10)))
    chain = train(tmp_path, "chain", jobs=3, output=disk)
    assert words(ended(chain)) == ["failed", "cancelled", "cancelled", "cancelled"]
    assert "No space left on device" in failure_report(chain.run, chain.run.plan, statuses_of(chain.run))
    assert last_step(disk) == -1
    ballast.unlink()
    again = train(tmp_path, "chain", jobs=1, output=disk)
    assert words(ended(again)) == ["succeeded", "succeeded"]
    assert last_step(disk) == STEPS
    assert weights(disk)
