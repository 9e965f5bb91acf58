"""One run writes an output; the record of a dead one is taken over by exactly one other; all outputs, or none."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from skills_pipe.artifacts.identity import Identity
from skills_pipe.artifacts.names import owner_path
from skills_pipe.errors import StoreError
from skills_pipe.pipeline.records.owner import Claim, OutputOwner, Wish, claim_outputs
from skills_pipe.pipeline.records.process import ProcessId
from skills_pipe.pipeline.site.along import Along
from skills_pipe.pipeline.site.site import HERE

IDENTITY = Identity.of(options={"lr": 1}, inputs={})


def owner(run: str) -> OutputOwner:
    return OutputOwner(run=run, stage="sft", claimed_by=ProcessId.current(), claimed_at=1.0, identity=IDENTITY)


def claim(run: str, *outputs: Path, anew: tuple[Path, ...] = (), is_live=lambda *_: True) -> Claim:
    owners = {str(output): owner(run) for output in outputs}
    with tempfile.TemporaryDirectory() as folder:
        aside = [str(path) for path in anew]
        wish = Wish(run=f"{folder}/run", owners=owners, set_aside=aside)
        made = claim_outputs(HERE, wish, is_live=is_live)
    assert made is not None
    return made


def owner_of(output: Path) -> OutputOwner | None:
    path = owner_path(output)
    return OutputOwner.parse(path.read_text(), str(output)) if path.exists() else None


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_where_nothing_can_be_written_it_is_told_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"/file.* cannot be read or written \(.*: choose another folder"):
        claim("run-1", tmp_path / "file" / "out")


def test_a_claim_is_on_record_beside_the_output(tmp_path):
    claim("run-1", tmp_path / "sub" / "out")
    assert owner_of(tmp_path / "sub" / "out") == owner("run-1")
    assert names(tmp_path / "sub") == [".owner-out.json"]


def test_a_live_owner_is_not_replaced(tmp_path):
    claim("/jobs/experiments/exp/run-1", tmp_path / "out")
    with pytest.raises(StoreError, match=r"is being written by stage 'sft' .*ns cancel exp/run-1"):
        claim("run-2", tmp_path / "out")
    assert owner_of(tmp_path / "out").run == "/jobs/experiments/exp/run-1"


def test_the_command_that_stops_the_owner_names_its_cluster(tmp_path):
    claim("/jobs/experiments/exp/run-1", tmp_path / "out")
    owners, run = {str(tmp_path / "out"): owner("run-2")}, str(tmp_path / "run-2")
    with pytest.raises(StoreError, match=r"`ns cancel exp/run-1 --cluster=slurm`"):
        claim_outputs(HERE, Wish(run=run, owners=owners), is_live=lambda *_: True, flag=" --cluster=slurm")


def test_a_dead_owner_is_replaced(tmp_path):
    claim("run-1", tmp_path / "out")
    claim("run-2", tmp_path / "out", is_live=lambda found, _: found.run != "run-1")
    assert owner_of(tmp_path / "out").run == "run-2"


def test_of_several_outputs_all_are_claimed_or_none(tmp_path):
    """The second is taken: the first is as it was before, be that free or of a dead run."""
    claim("dead", tmp_path / "a")
    claim("live", tmp_path / "c")
    with pytest.raises(StoreError, match=r"/c is being written"):
        claim("run-2", tmp_path / "a", tmp_path / "b", tmp_path / "c", is_live=_dead)
    assert owner_of(tmp_path / "a").run == "dead"
    assert owner_of(tmp_path / "b") is None
    assert names(tmp_path) == [".owner-a.json", ".owner-c.json"]


def test_of_several_outputs_none_is_claimed_where_one_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        claim("run-2", tmp_path / "a", tmp_path / "file" / "b")
    assert names(tmp_path) == ["file"]


def test_what_is_made_anew_is_set_aside_with_its_manifest(tmp_path):
    for name in ("out", "out.manifest.json", "old_out.1"):
        (tmp_path / name).write_text(name)
    claim("run-1", tmp_path / "out", anew=(tmp_path / "out",))
    assert names(tmp_path) == [".owner-out.json", "old_out.1", "old_out.2", "old_out.2.manifest.json"]
    assert (tmp_path / "old_out.2").read_text() == "out"


def test_a_refused_claim_sets_nothing_aside(tmp_path):
    (tmp_path / "out").write_text("x")
    claim("live", tmp_path / "out")
    with pytest.raises(StoreError):
        claim("run-2", tmp_path / "out", anew=(tmp_path / "out",))
    assert names(tmp_path) == [".owner-out.json", "out"]


def test_a_claim_that_is_undone_leaves_everything_as_it_was(tmp_path):
    for name in ("a", "a.manifest.json"):
        (tmp_path / name).write_text(name)
    (tmp_path / "b").mkdir()
    claim("dead", tmp_path / "a")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    made = claim("run-2", tmp_path / "a", tmp_path / "b", anew=(tmp_path / "a", tmp_path / "b"), is_live=_dead)
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()
    made.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert (tmp_path / "b").is_dir()


def test_the_folder_of_a_run_is_made_with_its_claims_or_not_at_all(tmp_path):
    claim("live", tmp_path / "out")
    run = str(tmp_path / "experiments" / "exp" / "run-1")
    with pytest.raises(StoreError):
        claim_outputs(HERE, Wish(run=run, owners={str(tmp_path / "out"): owner(run)}), is_live=lambda *_: True)
    assert names(tmp_path / "experiments" / "exp") == []
    assert claim_outputs(HERE, Wish(run=run, owners={str(tmp_path / "new"): owner(run)}), is_live=lambda *_: True)
    assert "scripts" in names(Path(run))


def test_who_comes_second_to_the_folder_of_a_run_claims_nothing(tmp_path):
    run = str(tmp_path / "run-1")
    assert claim_outputs(HERE, Wish(run=run, owners={str(tmp_path / "a"): owner(run)}), is_live=lambda *_: True)
    assert claim_outputs(HERE, Wish(run=run, owners={str(tmp_path / "b"): owner(run)}), is_live=lambda *_: True) is None
    assert owner_of(tmp_path / "b") is None


def test_undoing_leaves_alone_what_somebody_else_has_claimed_since(tmp_path):
    made = claim("run-1", tmp_path / "out")
    claim("run-2", tmp_path / "out", is_live=lambda *_: False)
    made.undo()
    assert owner_of(tmp_path / "out").run == "run-2"


def elsewhere(run: str, claimed_at: float = 1.0) -> OutputOwner:
    """Somebody on another machine, whose processes nobody sees here."""
    process = ProcessId(host="another-machine", pid=1, started="1")
    return OutputOwner(run=run, stage="sft", claimed_by=process, claimed_at=claimed_at, identity=IDENTITY)


def test_a_process_of_another_machine_counts_as_dead_after_a_while():
    assert elsewhere("run-1").may_be_submitting(1.0) and not elsewhere("run-1").may_be_submitting(1000.0)
    assert owner("run-1").may_be_submitting(1e12), "this process is seen to live"


@pytest.mark.parametrize("claimed_at", [0.0, 1e12], ids=["its clock is slow", "its clock is fast"])
def test_how_old_a_record_is_tells_the_file_system_alone(tmp_path, claimed_at):
    output = tmp_path / "out"
    wish = Wish(run=str(tmp_path / "run-1"), owners={str(output): elsewhere("run-1", claimed_at)})
    assert claim_outputs(HERE, wish, is_live=lambda *_: True)
    ages = []

    def is_live(found: OutputOwner, age: float) -> bool:
        ages.append(age)
        return found.may_be_submitting(age)

    with pytest.raises(StoreError, match="is being written"):
        claim("run-2", output, is_live=is_live)
    made = owner_path(output).stat().st_mtime
    os.utime(owner_path(output), (made - 1000, made - 1000))
    claim("run-2", output, is_live=is_live)
    assert owner_of(output).run == "run-2"
    assert 0 <= ages[0] < 900 and 1000 <= ages[1] < 1900


def test_a_dead_owner_that_is_put_back_is_no_younger(tmp_path):
    claim("dead", tmp_path / "out")
    claim("run-2", tmp_path / "out", is_live=_dead).undo()
    ages = []
    with pytest.raises(StoreError):
        claim("run-3", tmp_path / "out", is_live=lambda _, age: not ages.append(age))
    assert ages[0] > 1e6


def test_what_goes_along_is_done_before_anything_is_claimed(tmp_path):
    look = Along(argv=("ls", "-A", str(tmp_path)))
    wish = Wish(run=str(tmp_path / "run-1"), owners={str(tmp_path / "out"): owner("run-1")}, along=look)
    made = claim_outputs(HERE, wish, is_live=lambda *_: True)
    assert made is not None and made.along is look
    assert look.answer is not None and look.answer.out == "run-1\n"
    later = Along(argv=("true",))
    assert claim_outputs(HERE, replace(wish, along=later), is_live=lambda *_: True) is None
    assert later.answer is None, "negative control: somebody else has the folder"


def test_a_damaged_record_is_an_error_that_says_what_to_do(tmp_path):
    owner_path(tmp_path / "out").write_text("{")
    with pytest.raises(StoreError, match="remove this file"):
        claim("run-1", tmp_path / "out")


def _dead(found: OutputOwner, age: float) -> bool:
    return found.run != "dead"


def _try(folder: str, name: str) -> bool:
    try:
        claim(name, Path(folder) / "out", is_live=_dead)
    except StoreError:
        return False
    return True


def test_of_many_that_want_a_dead_owners_output_one_gets_it(tmp_path):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        for turn in range(15):
            folder = tmp_path / str(turn)
            folder.mkdir()
            claim("dead", folder / "out")
            won = pool.starmap(_try, [(str(folder), f"run-{index}") for index in range(4)])
            assert sum(won) == 1
            assert owner_of(folder / "out").run == f"run-{won.index(True)}"
