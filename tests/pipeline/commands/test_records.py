"""``ns status``, ``ns logs`` and ``ns cancel`` on real runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from skills_pipe.errors import JobFailed, StoreError
from skills_pipe.pipeline.commands import cancel, logs, status
from skills_pipe.pipeline.submit import submit
from tests.pipeline.programs import job, local, plan_of, shell, until


@pytest.fixture
def records(tmp_path, monkeypatch) -> Path:
    """Records with one run: stage ``good`` printed ten lines, stage ``bad`` failed."""
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "jobs"))
    lines = shell("for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i; done")
    with pytest.raises(JobFailed):
        submit(plan_of(job("good", lines, tmp_path), job("bad", shell("echo oh; exit 1"), tmp_path)), local(tmp_path))
    return tmp_path


def test_status_lists_the_runs(records, capsys):
    assert status.COMMAND.call([], {}) == 0
    out = capsys.readouterr().out
    assert "exp/run-1" in out and "good succeeded" in out and "bad failed" in out


def test_status_of_one_run_shows_its_jobs_and_logs(records, capsys):
    assert status.COMMAND.call(["exp"], {}) == 0
    out = capsys.readouterr().out
    assert "exit code 1" in out and f"{records}/logs/main_bad_local-1.log" in out


def test_status_before_anything_was_submitted(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path))
    assert status.COMMAND.call([], {}) == 0
    assert capsys.readouterr().out == "nothing was submitted yet\n"


def test_an_unknown_experiment_is_answered_with_a_near_one(records):
    with pytest.raises(StoreError, match="did you mean 'exp'"):
        status.COMMAND.call(["exq"], {})


def test_logs_show_the_end_of_each_log(records, capsys):
    assert logs.COMMAND.call(["exp", "--lines=2"], {}) == 0
    out = capsys.readouterr().out
    assert "line 9\nline 10\n" in out and "line 8" not in out and "oh\n" in out


def test_logs_of_one_stage_whole(records, capsys):
    assert logs.COMMAND.call(["exp", "good", "--lines=0"], {}) == 0
    out = capsys.readouterr().out
    assert out.count("line ") == 10 and "oh" not in out


def test_logs_of_an_unknown_stage(records):
    with pytest.raises(StoreError, match=r"no job of 'god' .*did you mean 'good'"):
        logs.COMMAND.call(["exp", "god"], {})


def test_nothing_is_there_to_cancel_when_all_has_ended(records, capsys):
    assert cancel.COMMAND.call(["exp"], {}) == 0
    assert "nothing runs or waits" in capsys.readouterr().out


_LIVE = """
import sys
from pathlib import Path
from skills_pipe.pipeline.submit import submit
from tests.pipeline.programs import job, local, plan_of, shell
folder = Path(sys.argv[1])
talk = f"echo first; touch {folder}/runs; until [ -e {folder}/go ]; do sleep 0.02; done; echo second"
submit(plan_of(job("talk", shell(talk), folder)), local(folder))
"""


@pytest.fixture
def live(tmp_path, monkeypatch):
    """A run in another process that says ``first``, and ``second`` when the file ``go`` appears."""
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "jobs"))
    process = subprocess.Popen([sys.executable, "-c", _LIVE, str(tmp_path)], stdout=subprocess.DEVNULL)
    until((tmp_path / "runs").exists, "the job runs")
    yield process
    (tmp_path / "go").touch()
    process.wait()


def test_following_shows_what_is_added_and_ends_with_the_job(tmp_path, live):
    program = "from skills_pipe.pipeline.commands.logs import COMMAND; COMMAND.call(['exp', '-f'], {})"
    follower = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    seen = []
    for line in follower.stdout:
        seen.append(line.strip())
        if seen[-1] == "first":
            (tmp_path / "go").touch()
    assert follower.wait() == 0
    assert [line for line in seen if line in ("first", "second")] == ["first", "second"]


def test_cancelling_a_live_run_stops_it(tmp_path, live, capsys):
    assert cancel.COMMAND.call(["exp"], {}) == 0
    assert "exp/run-1: stopping talk" in capsys.readouterr().out
    assert live.wait() != 0
    assert "second" not in (tmp_path / "logs" / "main_talk_local-1.log").read_text()
