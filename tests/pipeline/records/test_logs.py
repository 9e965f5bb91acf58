"""Which files the logs of a job are, and reading them piece by piece."""

from __future__ import annotations

from dataclasses import replace

import pytest

from skills_pipe.pipeline.plan import Command, Member
from skills_pipe.pipeline.records import logs
from skills_pipe.pipeline.records.logs import LogReader, log_files
from tests.pipeline.programs import job, plan_of, shell
from tests.pipeline.reports.recorded import recorded


@pytest.fixture
def run(tmp_path):
    """A recorded run of one job with a server beside it; its log folder is there."""
    (tmp_path / "logs").mkdir()
    alone = job("a", shell("true"), tmp_path)
    server = Member(name="server", command=Command(argv=("serve",)), service=True)
    return recorded(tmp_path, plan_of(replace(alone, beside=(server,))))


def test_a_job_on_slurm_has_a_log_for_each_command_and_one_of_its_script(run, tmp_path):
    assert [(file.part, file.path) for file in log_files(run, "a")] == [
        ("main", f"{tmp_path}/logs/main_a_100_srun.log"),
        ("server", f"{tmp_path}/logs/server_a_100_srun.log"),
        ("batch", f"{tmp_path}/logs/a_100_sbatch.log"),
    ]


def test_a_job_on_this_machine_has_no_batch_script(run, tmp_path):
    record = run.submission
    run.write_submission(replace(record, logs={"a": f"{tmp_path}/logs/main_a_local-1.log"}))
    assert [file.path.rpartition("/")[2] for file in log_files(run, "a")] == [
        "main_a_local-1.log",
        "server_a_local-1.log",
    ]


def test_a_job_that_was_not_submitted_has_none(run):
    assert log_files(run, "b") == ()


@pytest.fixture
def log(run, tmp_path):
    path = tmp_path / "logs" / "main_a_100_srun.log"
    reader = LogReader(run, log_files(run, "a"))
    return path, reader


def texts(pieces):
    return [text for _, text in pieces]


def test_the_end_comes_first_then_what_is_added(log):
    path, reader = log
    path.write_text("one\ntwo\nthree\n")
    assert texts(reader.ends(2)) == ["two\nthree\n"]
    assert reader.added() == []
    with open(path, "a") as file:
        file.write("four\n")
    assert texts(reader.added()) == ["four\n"]


def test_a_log_that_begins_later_is_read_from_its_start(log):
    path, reader = log
    assert reader.ends(2) == []
    path.write_text("one\n")
    assert texts(reader.added()) == ["one\n"]


def test_a_requeued_job_goes_on_in_the_same_log(log):
    path, reader = log
    path.write_text("first start\n")
    reader.ends(0)
    with open(path, "a") as file:
        file.write("second start\n")
    assert texts(reader.added()) == ["second start\n"]


def test_a_log_that_was_emptied_is_read_from_its_start_again(log):
    path, reader = log
    path.write_text("a long first line\n")
    reader.ends(0)
    path.write_text("new\n")
    assert [*reader.added(), *reader.added()][0][1] == "new\n"


@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_the_whole_of_a_log_is_read_in_pieces_of_any_size(log, monkeypatch, piece):
    monkeypatch.setattr(logs, "_PIECE_BYTES", piece)
    path, reader = log
    text = "größer als ein Stück ✓\n" * 3
    path.write_text(text)
    assert texts(reader.ends(0)) == [text]


def test_a_letter_that_is_cut_in_two_is_not_lost(log):
    path, reader = log
    letter = "✓".encode()
    path.write_bytes(letter[:1])
    first = "".join(texts(reader.added()))
    with open(path, "ab") as file:
        file.write(letter[1:])
    assert first + "".join(texts(reader.added())) == "✓"


def test_of_a_progress_bar_the_last_state_is_shown(log):
    path, reader = log
    path.write_bytes(b"start\n10%\r20%\r30%\nend\n")
    assert texts(reader.ends(2)) == ["30%\nend\n"]


def test_many_lines_are_found_however_long_the_log_is(log):
    path, reader = log
    path.write_text("".join(f"line {number} {'x' * 300}\n" for number in range(2000)))
    (text,) = texts(reader.ends(500))
    assert len(text.splitlines()) == 500 and text.startswith("line 1500 ")
