"""When a job ran, over all its starts, from what its batch script has noted."""

from __future__ import annotations

from skills_pipe.artifacts.events import Event
from skills_pipe.pipeline.records.times import RAN_FROM, RAN_TO, Starts, starts_of


def noted(*notes: tuple[str, int, float], job: str = "a") -> list[Event]:
    return [Event(time=time, subject=job, kind=kind, details={"start": start}) for kind, start, time in notes]


def test_a_job_that_has_not_begun_has_no_starts():
    assert starts_of("a", []) == Starts()


def test_a_job_that_runs_has_one():
    assert starts_of("a", noted((RAN_FROM, 0, 10.0))) == Starts(count=1, last_from=10.0)


def test_earlier_starts_add_up_and_the_last_one_stands_apart():
    notes = noted((RAN_FROM, 0, 10), (RAN_TO, 0, 15), (RAN_FROM, 1, 100), (RAN_TO, 1, 107), (RAN_FROM, 2, 200))
    assert starts_of("a", notes) == Starts(count=3, last_from=200, seconds_before=12)


def test_of_several_notes_of_an_end_the_last_one_counts():
    """TERM comes more than once."""
    notes = noted((RAN_FROM, 0, 10), (RAN_TO, 0, 15), (RAN_TO, 0, 18), (RAN_FROM, 1, 30))
    assert starts_of("a", notes).seconds_before == 8


def test_a_start_whose_end_nobody_noted_counts_for_nothing():
    assert starts_of("a", noted((RAN_FROM, 0, 10), (RAN_FROM, 1, 30))).seconds_before == 0


def test_negative_control_other_jobs_and_other_events_do_not_count():
    others = [*noted((RAN_FROM, 0, 10), job="b"), Event(time=1, subject="a", kind="started")]
    assert starts_of("a", others) == Starts()
