"""One run writes an output; the record of a dead one is taken over by exactly one other."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from skills_pipe.artifacts.identity import Identity
from skills_pipe.artifacts.names import owner_path
from skills_pipe.errors import StoreError
from skills_pipe.pipeline.records.owner import OutputOwner
from skills_pipe.pipeline.records.process import ProcessId

IDENTITY = Identity.of(options={"lr": 1}, inputs={}, upstream={})


def owner(run: str) -> OutputOwner:
    return OutputOwner(run=run, stage="sft", claimed_by=ProcessId.current(), identity=IDENTITY)


def test_an_unclaimed_output_has_no_owner(tmp_path):
    assert OutputOwner.read(tmp_path / "out") is None


def test_where_nothing_can_be_written_it_is_told_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/out cannot be written \(.*choose another folder"):
        owner("run-1").claim(tmp_path / "file" / "out", is_live=lambda _: True)


def test_a_claim_is_on_record_beside_the_output(tmp_path):
    owner("run-1").claim(tmp_path / "sub" / "out", is_live=lambda _: True)
    assert OutputOwner.read(tmp_path / "sub" / "out") == owner("run-1")
    assert [path.name for path in (tmp_path / "sub").iterdir()] == [".owner-out.json"]


def test_a_live_owner_is_not_replaced(tmp_path):
    owner("/jobs/experiments/exp/run-1").claim(tmp_path / "out", is_live=lambda _: True)
    with pytest.raises(StoreError, match=r"is being written by stage 'sft' .*ns cancel exp/run-1"):
        owner("run-2").claim(tmp_path / "out", is_live=lambda _: True)
    assert OutputOwner.read(tmp_path / "out").run == "/jobs/experiments/exp/run-1"


def test_a_dead_owner_is_replaced(tmp_path):
    owner("run-1").claim(tmp_path / "out", is_live=lambda _: True)
    owner("run-2").claim(tmp_path / "out", is_live=lambda found: found.run != "run-1")
    assert OutputOwner.read(tmp_path / "out").run == "run-2"


def test_a_damaged_record_is_an_error_that_says_what_to_do(tmp_path):
    owner_path(tmp_path / "out").write_text("{")
    with pytest.raises(StoreError, match="remove this file"):
        OutputOwner.read(tmp_path / "out")


def _dead(found: OutputOwner) -> bool:
    return found.run != "dead"


def _try(folder: str, name: str) -> bool:
    try:
        owner(name).claim(Path(folder) / "out", is_live=_dead)
    except StoreError:
        return False
    return True


def test_of_many_that_want_a_dead_owners_output_one_gets_it(tmp_path):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        for turn in range(15):
            folder = tmp_path / str(turn)
            folder.mkdir()
            owner("dead").claim(folder / "out", is_live=lambda _: True)
            won = pool.starmap(_try, [(str(folder), f"run-{index}") for index in range(4)])
            assert sum(won) == 1
            assert OutputOwner.read(folder / "out").run == f"run-{won.index(True)}"
