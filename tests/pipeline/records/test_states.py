"""States of jobs as a run has recorded them: by several writers, whose clocks differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

from skills_pipe.artifacts.events import EventLog
from skills_pipe.pipeline.records.states import JobState, JobStatus, record_end, record_start, recorded_statuses
from tests.pipeline.programs import job, plan_of, shell
from tests.pipeline.reports.recorded import recorded

S = JobState


@pytest.fixture
def run(tmp_path):
    return recorded(tmp_path, plan_of(job("a", shell("true"), tmp_path)))


def test_an_end_stands_although_a_clock_that_is_ahead_recorded_the_start(run, monkeypatch):
    """One machine has seen the job run, another one has seen it ended; the first one's clock is a minute ahead."""
    running = JobStatus(job="a", stage="a", state=S.RUNNING, started_at=1000.0)
    monkeypatch.setattr("time.time", lambda: 1061.0)
    record_start(EventLog(run.folder / "events", writer="ahead"), running)
    monkeypatch.setattr("time.time", lambda: 1020.0)
    ended = replace(running, state=S.SUCCEEDED, ended_at=1010.0, exit_code=0)
    record_end(EventLog(run.folder / "events", writer="right"), ended)
    status = recorded_statuses(run)["a"]
    assert (status.state, status.started_at, status.ended_at) == (S.SUCCEEDED, 1000.0, 1010.0)


def test_negative_control_a_start_after_the_end_is_a_new_one(run):
    log = run.event_log()
    first = JobStatus(job="a", stage="a", state=S.FAILED, started_at=1000.0, ended_at=1010.0, exit_code=1)
    record_start(log, first)
    record_end(log, first)
    record_start(log, replace(first, state=S.RUNNING, started_at=1020.0))
    status = recorded_statuses(run)["a"]
    assert (status.state, status.started_at, status.ended_at) == (S.RUNNING, 1020.0, None)
