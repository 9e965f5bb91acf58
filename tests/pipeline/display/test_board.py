"""A run that is watched: a line for each change where there is no terminal, else a picture that redraws itself."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import pytest

from skills_pipe.artifacts.progress import Progress
from skills_pipe.errors import JobFailed
from skills_pipe.pipeline.display import board
from skills_pipe.pipeline.records.states import JobState, JobStatus
from skills_pipe.pipeline.submit import submit
from tests.pipeline.display.screen import console, shown
from tests.pipeline.programs import job, local, plan_of, shell, training_plan
from tests.pipeline.reports.recorded import recorded, statuses, warn


def test_each_change_is_a_line_where_there_is_no_terminal(tmp_path):
    out = console(width=20)
    with pytest.raises(JobFailed):
        submit(
            plan_of(job("a", shell("exit 1"), tmp_path), job("b", shell("true"), tmp_path, "a")),
            local(tmp_path),
            console=out,
        )
    lines = shown(out).splitlines()
    assert lines[0] == f"a: running, log {tmp_path}/logs/main_a_local-1.log"
    assert lines[1].startswith("a: failed after ") and lines[1].endswith(": exit code 1")
    assert lines[2] == "b: cancelled: a failed"
    assert len(lines) == 3


def test_a_terminal_shows_a_table_that_redraws_itself(tmp_path):
    out = console(width=120, force_terminal=True)
    submit(plan_of(job("a", shell("echo the last line; sleep 0.3"), tmp_path)), local(tmp_path), console=out)
    text = shown(out)
    assert "running" in text and "succeeded" in text and "a | the last line" in text
    assert "\x1b[" in text


def test_without_a_terminal_progress_is_a_line_now_and_then(tmp_path, monkeypatch):
    run = recorded(tmp_path, plan_of(job("a", shell("true"), tmp_path)))
    report = Progress(done=12, total=100, unit="steps", loss=1.25, updated_at=time.time())
    run.progress_path("a").write_text(json.dumps(asdict(report)))
    out = console(width=200)
    status = JobStatus(job="a", stage="a", state=JobState.RUNNING, started_at=time.time())
    with board.LiveBoard(console=out) as watching:
        watching.update(run, {"a": status})
        assert "12/100" not in shown(out), "not at once: a line for each look would fill the log"
        monkeypatch.setattr(board, "_LINES_EVERY", 0.0)
        watching.update(run, {"a": status})
    assert shown(out).splitlines()[-1] == "a: 12/100 steps · loss 1.250"


def test_what_jobs_warn_of_is_a_line_as_soon_as_the_first_has_said_it(tmp_path):
    run = recorded(tmp_path, training_plan(tmp_path, "step", jobs=2))
    given = statuses(run, sft_0=JobState.RUNNING)
    out = console(width=200)
    with board.LiveBoard(console=out) as watching:
        watching.update(run, given)
        assert "warning" not in shown(out)
        warn(run, "sft-0", "no answer ends")
        for _ in range(2):
            watching.update(run, given)
        assert shown(out).splitlines()[1:] == ["sft-0: warning: no answer ends"]
        warn(run, "sft-1", "no answer ends", "too long")
        watching.update(run, statuses(run, sft_0=JobState.CONTINUED, sft_1=JobState.SUCCEEDED))
    assert shown(out).splitlines()[-1] == "sft-1: warning: too long", "though nobody has seen that job run"
    assert shown(out).count("no answer ends") == 1


def test_a_terminal_shows_what_a_job_warns_of_below_it(tmp_path):
    out = console(width=120, force_terminal=True, color_system=None)
    said = """echo '["no answer ends"]' > $SKILLS_PIPE_WARNINGS_FILE; sleep 0.3"""
    submit(plan_of(job("a", shell(said), tmp_path)), local(tmp_path), console=out)
    assert "      warning: no answer ends" in shown(out)
