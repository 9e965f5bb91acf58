"""Records of runs: one folder for each, found by name, claimed once."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from skills_pipe.errors import PlanError, StoreError
from skills_pipe.pipeline.records.process import ProcessId
from skills_pipe.pipeline.records.store import Run, RunStore
from skills_pipe.pipeline.records.submission import SubmissionRecord
from tests.pipeline.programs import job, plan_of, shell


def submitted(store: RunStore, expname: str, *, at: float = 0.0) -> Run:
    run = store.create(expname)
    run.write_plan(plan_of(job("a", shell("true"), Path("/tmp"))))
    run.write_submission(
        SubmissionRecord(executor="local", cluster="local", owner=ProcessId.current(), submitted_at=at)
    )
    return run


def test_runs_of_an_experiment_are_numbered(tmp_path):
    store = RunStore(tmp_path)
    assert store.next_run("exp").folder == tmp_path / "experiments" / "exp" / "run-1"
    assert [store.create("exp").number for _ in range(3)] == [1, 2, 3]
    assert store.next_run("exp").number == 4


def test_the_number_ten_comes_after_nine(tmp_path):
    store = RunStore(tmp_path)
    for _ in range(11):
        last = submitted(store, "exp")
    assert store.latest("exp").folder == last.folder
    assert [run.number for run in store.runs("exp")] == list(range(11, 0, -1))


def _claim(folder: str, count: int) -> list[str]:
    return [str(RunStore(Path(folder)).create("exp").folder) for _ in range(count)]


def test_processes_that_claim_at_once_get_different_folders(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        claimed = [folder for folders in pool.starmap(_claim, [(str(tmp_path), 20)] * 3) for folder in folders]
    assert len(set(claimed)) == 60


def test_a_run_that_was_never_submitted_is_not_the_latest(tmp_path):
    store = RunStore(tmp_path)
    first = submitted(store, "exp")
    store.create("exp")
    assert store.latest("exp").folder == first.folder


def test_all_runs_are_listed_the_newest_first(tmp_path):
    store = RunStore(tmp_path)
    expected = [submitted(store, name, at=at) for at, name in enumerate(["a", "b", "a"])]
    (tmp_path / "experiments" / "a" / "logs").mkdir()
    assert [str(run) for run in store.all()] == ["a/run-2", "b/run-1", "a/run-1"] and len(expected) == 3


def test_a_run_is_found_by_experiment_number_and_folder(tmp_path):
    store = RunStore(tmp_path)
    first, second = submitted(store, "exp"), submitted(store, "exp")
    assert store.find("exp").folder == second.folder
    assert store.find("exp/run-1").folder == first.folder
    assert store.find(str(first.folder)).folder == first.folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exq", r"there is no experiment 'exq' .*did you mean 'exp'\?"),
        ("something else", r"there is no experiment 'something else' .*`ns status` lists all"),
        ("exp/run-7", r"experiment 'exp' has no run-7: it has run-1"),
    ],
)
def test_what_is_not_there_is_named_with_what_is_near(tmp_path, name, message):
    store = RunStore(tmp_path)
    submitted(store, "exp")
    with pytest.raises(StoreError, match=message):
        store.find(name)


def test_an_experiment_of_a_cluster_is_looked_for_there(tmp_path):
    with pytest.raises(StoreError, match=r"`ns status --cluster=slurm` lists all$"):
        RunStore(tmp_path, flag=" --cluster=slurm").find("exp")
    with pytest.raises(StoreError, match="with --cluster=NAME those of a cluster"):
        RunStore(tmp_path).find("exp")


@pytest.mark.parametrize("name", ["", "a/b", "..", "../a", ".hidden", "a b", "-rf", "a\n"])
def test_a_name_that_is_no_folder_is_refused(tmp_path, name):
    with pytest.raises(PlanError, match="cannot be the name of an experiment"):
        RunStore(tmp_path).create(name)


def test_a_record_is_read_back_as_it_was_written(tmp_path):
    run = submitted(RunStore(tmp_path), "exp", at=12.5)
    record = SubmissionRecord(
        executor="slurm",
        cluster="big",
        owner=ProcessId.current(),
        submitted_at=12.5,
        actions={"sft": "run"},
        job_ids={"a": "17"},
        logs={"a": "/logs/a"},
    )
    run.write_submission(record)
    assert Run(run.folder).submission == record
    assert Run(run.folder).plan == run.plan


def test_where_no_record_can_be_made_it_is_told_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"records of runs cannot be written \(.*SKILLS_PIPE_JOB_DIR"):
        RunStore(tmp_path / "file").create("exp")
