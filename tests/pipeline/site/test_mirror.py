"""Copies of records: what is read here is what the cluster has, and what is written here gets there.

The cluster is a folder beside, reached by an agent in a process of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skills_pipe.errors import StoreError
from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.records.process import ProcessId
from skills_pipe.pipeline.records.store import Run, RunStore
from skills_pipe.pipeline.records.submission import SubmissionRecord
from skills_pipe.pipeline.site.agent import records
from skills_pipe.pipeline.site.mirror import Mirror
from skills_pipe.pipeline.site.site import AgentHere, Site, Want


@dataclass
class Counted:
    """An agent that counts round trips."""

    trips: int = 0
    agent: AgentHere = field(default_factory=AgentHere)

    def answer(self, actions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        self.trips += 1
        # As through ssh: only what JSON can carry.
        return json.loads(json.dumps(self.agent.answer(json.loads(json.dumps(actions)))))


@dataclass
class World:
    """A laptop with copies of the runs of a cluster."""

    folder: Path
    agent: Counted = field(default_factory=Counted)

    @property
    def there(self) -> RunStore:
        return RunStore(self.folder / "cluster")

    @property
    def here(self) -> RunStore:
        """A command of its own: it knows nothing but what lies in the folder of copies."""
        mirror = Mirror(Site(self.agent), f"{self.folder}/cluster", self.folder / "laptop")
        return RunStore(mirror.folder, mirror=mirror)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def submitted(store: RunStore, expname: str = "exp", *, at: float = 1.0) -> Run:
    run = store.create(expname)
    run.write_plan(Plan(expname=expname, command="test", stages=(), jobs=()))
    owner = ProcessId.current()
    run.write_submission(SubmissionRecord(executor="slurm", cluster="far", owner=owner, submitted_at=at))
    run.flush()
    return run


def test_a_run_that_is_made_here_is_there(world):
    run = submitted(world.here)
    assert run.at == f"{world.folder}/cluster/experiments/exp/run-1"
    assert run.folder == world.folder / "laptop" / "experiments" / "exp" / "run-1"
    found = world.there.find("exp")
    assert str(found.folder) == run.at
    assert found.submission == run.submission and found.plan == run.plan


def test_a_run_that_is_made_there_is_found_here_by_all_its_names(world):
    submitted(world.there, at=2.0)
    newest = submitted(world.there, at=1.0)
    for name in ("exp", "exp/run-2", str(newest.folder)):
        assert world.here.find(name).at == str(newest.folder)
    assert [run.number for run in world.here.runs("exp")] == [2, 1]
    assert [run.at for run in world.here.all()] == [f"{newest.folder.parent}/run-{n}" for n in (1, 2)]
    with pytest.raises(
        StoreError, match=r"there is no experiment 'epx' \(.*/cluster/experiments\): did you mean 'exp'"
    ):
        world.here.find("epx")


def test_two_laptops_never_get_the_same_run(world):
    first, second = world.here, world.here
    first.look(["exp"], {})
    second.look(["exp"], {})
    assert [first.create("exp").number, second.create("exp").number] == [1, 2]


def test_what_was_written_goes_along_with_the_next_program(world):
    run = submitted(world.here)
    (run.folder / "chain" / "all.stopped").write_text("stopped")
    (run.folder / "secrets.env").write_text("export A=b")
    (run.folder / "secrets.env").chmod(0o600)
    before = world.agent.trips
    answer = run.transport.run(["sh", "-c", 'cat "$0/chain/all.stopped"; cat', run.at], stdin=" by ns")
    assert answer.out == "stopped by ns"
    assert world.agent.trips == before + 1
    there = Path(run.at, "secrets.env")
    assert there.read_text() == "export A=b" and there.stat().st_mode & 0o777 == 0o600
    assert not (run.folder / "secrets.env").exists()


def test_what_a_program_has_changed_is_seen_when_it_has_ended(world):
    run = submitted(world.here)
    run.transport.run(["sh", "-c", 'echo 75 > "$0/exits/sft"; echo {} > "$0/verdicts/sft.json"', run.at])
    assert run.exit_code("sft") == 75 and (run.folder / "verdicts" / "sft.json").exists()
    run.transport.run(["rm", f"{run.at}/exits/sft"])
    assert run.exit_code("sft") is None, "a job that starts again removes what its first start has left"


def test_what_is_removed_here_is_removed_there(world):
    run = submitted(world.here)
    (run.folder / "submitting.json").write_text("{}")
    run.flush()
    assert Path(run.at, "submitting.json").exists()
    (run.folder / "submitting.json").unlink()
    run.flush()
    assert not Path(run.at, "submitting.json").exists()


def test_what_only_the_cluster_has_is_not_removed_by_a_launcher_that_never_saw_it(world):
    run = submitted(world.here)
    Path(run.at, "jobs.tsv").write_text("a\t1\n")
    (run.folder / "chain" / "x").write_text("")
    run.flush()
    assert Path(run.at, "jobs.tsv").exists()


def test_a_look_is_fresh_once_and_asked_for_again(world):
    submitted(world.there)
    run = world.here.find("exp")
    trips = world.agent.trips
    run.refresh()
    assert world.agent.trips == trips, "it was found just now"
    Path(run.at, "exits", "a").write_text("3")
    assert run.exit_code("a") is None
    run.refresh()
    assert run.exit_code("a") == 3


def test_nothing_to_send_is_no_round_trip(world):
    run = submitted(world.here)
    trips = world.agent.trips
    run.flush()
    assert world.agent.trips == trips


def test_records_and_facts_come_in_one_round_trip(world):
    submitted(world.there)
    here = world.here
    facts = here.look(["exp"], {str(world.folder): [Want.PLACE]})
    assert facts[str(world.folder)].exists and here.next_run("exp").number == 2
    assert world.agent.trips == 1


def test_runs_of_another_job_folder_of_the_cluster_are_found(world):
    other = submitted(RunStore(world.folder / "elsewhere"), "other")
    found = world.here.at(str(other.folder))
    assert found.submission == other.submission and found.at == str(other.folder)


def test_of_many_runs_the_newest_come_whole_and_the_others_when_they_are_looked_at(world, monkeypatch):
    monkeypatch.setattr(records, "WHOLE", 1)
    old, new = submitted(world.there, "old"), submitted(world.there, "new")
    for age, run in enumerate((new, old)):
        (run.folder / "exits" / "a").write_text("3")
        os.utime(run.folder, (1e9 - age, 1e9 - age))
    found = {run.expname: run for run in world.here.all()}
    assert found.keys() == {"old", "new"}
    assert (found["new"].exit_code("a"), found["old"].exit_code("a")) == (3, None)
    trips = world.agent.trips
    for run in found.values():
        run.refresh()
    assert found["old"].exit_code("a") == 3
    assert world.agent.trips == trips + 1


def test_copies_of_runs_that_are_gone_are_gone(world):
    run = submitted(world.there)
    assert world.here.find("exp")
    for path in sorted(run.folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    run.folder.rmdir()
    run.folder.parent.rmdir()
    with pytest.raises(StoreError, match="there is no experiment 'exp'"):
        world.here.find("exp")


NAMES = st.sampled_from(
    ["exits/a", "verdicts/a.json", "events/x.jsonl", "jobs.tsv", "progress/a.json", "warnings/a.json"]
)
STEPS = st.lists(st.tuples(st.sampled_from(["write", "remove"]), NAMES, st.text("ab\nä", max_size=3)), max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(STEPS, min_size=1, max_size=4))
def test_copies_are_equal_after_any_changes_there(tmp_path_factory, rounds):
    """What jobs never remove may stay as a copy; all else is equal after every look."""
    world = World(tmp_path_factory.mktemp("world"))
    there = submitted(world.there).folder
    for steps in rounds:
        for step, name, text in steps:
            if step == "write":
                (there / name).write_text(text)
            elif name.split("/")[0] in ("exits", "verdicts", "progress", "warnings"):
                (there / name).unlink(missing_ok=True)
        here = world.here.find("exp").folder
        assert contents(here) == contents(there)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_that_another_command_has_fetched_is_not_sent_back(world):
    """`ns status --watch` in one terminal, another command in the next: copies are no news for the cluster."""
    there = submitted(world.there)
    there.progress_path("sft").write_text('{"step": 1}')
    there.make_folders()
    asked_to_save = there.folder / "save-now" / "sft"
    asked_to_save.touch()
    first = world.here.find("exp")
    there.progress_path("sft").write_text('{"step": 20}')
    world.here.find("exp")
    there.progress_path("sft").write_text('{"step": 300}')
    asked_to_save.unlink()
    first.transport.run(["true"])
    assert there.progress_path("sft").read_text() == '{"step": 300}'
    assert not asked_to_save.exists()
    assert first.folder.joinpath("progress", "sft.json").read_text() == '{"step": 300}'
    # What was written here is sent as ever.
    first.folder.joinpath("chain", "all.stopped").write_text("cancelled\n")
    first.flush()
    assert (there.folder / "chain" / "all.stopped").read_text() == "cancelled\n"


def test_of_two_laptops_neither_overwrites_what_it_has_not_seen(world):
    there = submitted(world.there)
    note = there.folder / "chain" / "sft.stopped"
    first = world.here.find("exp")
    note.write_text("a rank was killed\n")
    (first.folder / "chain" / "sft.stopped").write_text("cancelled\n")
    first.flush()
    assert note.read_text() == "a rank was killed\n"
    assert world.here.find("exp").why_stopped("sft") == "a rank was killed"


@dataclass
class Interrupted(Counted):
    """An agent behind a slow connection: something else happens before its first answer arrives."""

    meanwhile: Callable[[], object] = int

    def answer(self, actions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        answers = super().answer(actions)
        self.meanwhile, happens = int, self.meanwhile
        happens()
        return answers


def test_a_run_that_another_command_submits_meanwhile_is_left_alone(world):
    submitted(world.there, "old")
    world.here.all()
    made: list[Run] = []
    world.agent = Interrupted(meanwhile=lambda: made.extend([world.here.create("new"), world.here.create("old")]))
    world.here.all()
    assert [run.at.rpartition("/")[2] for run in made] == ["run-1", "run-2"]
    for run in made:
        run.write_script("sft", "#!/bin/bash\n")
        run.flush()
        assert Path(run.at, "scripts", "sft.sh").exists()


def test_what_another_command_writes_meanwhile_is_neither_lost_nor_replaced(world):
    there = submitted(world.there)
    there.make_folders()
    there.progress_path("sft").write_text('{"step": 1}')
    here = world.here.find("exp")
    there.progress_path("sft").write_text('{"step": 2}')

    def meanwhile() -> None:
        there.progress_path("sft").write_text('{"step": 3}')
        world.here.find("exp")
        (here.folder / "save-now" / "sft").touch()

    world.agent = Interrupted(meanwhile=meanwhile)
    world.here.find("exp")
    assert (here.folder / "save-now" / "sft").exists()
    assert here.folder.joinpath("progress", "sft.json").read_text() == '{"step": 3}'
