"""A run at one moment: what waits for what, what was used, how far it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.reports.advice import Typed, advice
from skills_pipe.pipeline.reports.as_json import run_state
from skills_pipe.pipeline.reports.report import report_of
from tests.pipeline.programs import job, make, plan_of, shell, training_plan
from tests.pipeline.reports.recorded import recorded, report_progress, statuses

S = JobState
NOW = 10_000.0


@pytest.fixture
def run(tmp_path):
    return recorded(tmp_path, training_plan(tmp_path, "step", jobs=3))


def notes(report, stage):
    return [job.note for job in report.stage(stage).jobs]


def test_jobs_that_wait_for_others_name_them(run):
    report = report_of(run, statuses(run, sft_0=S.RUNNING), now=NOW)
    assert notes(report, "sft") == [
        "",
        "runs only if sft-0 does not finish the work",
        "runs only if sft-0, sft-1 do not finish the work",
    ]
    assert notes(report, "convert") == ["waits for one of sft-0, sft-1, sft-2"]


def test_jobs_that_have_ended_are_not_waited_for_any_more(run):
    report = report_of(run, statuses(run, sft_0=S.CONTINUED, sft_1=S.RUNNING), now=NOW)
    assert notes(report, "sft")[2] == "runs only if sft-1 does not finish the work"


def test_a_job_whose_turn_it_is_says_what_slurm_says(run):
    told = statuses(run)
    told["sft-0"] = replace(told["sft-0"], reason="Resources")
    assert notes(report_of(run, told, now=NOW), "sft")[0] == "first in line, waits for free nodes"


def test_what_slurm_says_of_a_waiting_job_is_not_hidden_by_its_edges(run):
    told = statuses(run, sft_0=S.RUNNING)
    told["sft-1"] = replace(told["sft-1"], reason="JobHeldUser")
    assert notes(report_of(run, told, now=NOW), "sft")[1] == "held by its owner"


def test_gpu_hours_count_every_start_of_a_job(run):
    told = statuses(run, sft_0=S.RUNNING)
    told["sft-0"] = replace(told["sft-0"], gpus=8, started_at=NOW - 1800, earlier_seconds=1800, restarts=1)
    report = report_of(run, told, now=NOW)
    assert report.stage("sft").gpu_hours == report.gpu_hours == 8.0
    assert report.with_gpus


def test_a_stage_that_was_finished_before_has_no_job(tmp_path):
    plan = plan_of(job("a", make(tmp_path / "a"), tmp_path), job("b", shell("true"), tmp_path, "a"))
    run = recorded(tmp_path, plan, skipped=("a",))
    report = report_of(run, statuses(run, b=S.SUCCEEDED), now=NOW)
    assert [(stage.word, len(stage.jobs)) for stage in report.stages] == [("finished before", 0), ("succeeded", 1)]
    assert report.ended and report.good


def test_a_run_that_was_never_submitted_has_ended_and_is_not_good(tmp_path):
    run = recorded(tmp_path, plan_of(job("a", shell("true"), tmp_path)))
    (run.folder / "submission.json").unlink()
    report = report_of(run, {}, now=NOW)
    assert (report.ended, report.good, report.stages[0].word) == (True, False, "not submitted")


def test_a_run_that_is_being_submitted_has_not_ended(tmp_path):
    run = recorded(tmp_path, plan_of(job("a", shell("true"), tmp_path)))
    run.write_draft(run.submission)
    (run.folder / "submission.json").unlink()
    report = report_of(run, {}, now=NOW)
    assert (report.ended, report.good, run_state(report)) == (False, False, "pending")
    assert advice(report, Typed(name="exp")) == ("it is being submitted right now",)


@pytest.mark.parametrize(
    ("state", "ended", "good"),
    [(S.RUNNING, False, False), (S.FAILED, True, False), (S.CANCELLED, True, False), (S.SUCCEEDED, True, True)],
)
def test_a_run_is_good_when_every_stage_has_done_its_work(tmp_path, state, ended, good):
    run = recorded(tmp_path, plan_of(job("a", shell("true"), tmp_path)))
    report = report_of(run, statuses(run, a=state), now=NOW)
    assert (report.ended, report.good) == (ended, good)


def test_what_is_left_shrinks_between_two_reports_of_the_job(run):
    report_progress(run, "sft-0", done=1, total=9, eta_seconds=500.0, updated_at=NOW - 100)
    (first, *_) = report_of(run, statuses(run, sft_0=S.RUNNING), now=NOW).stage("sft").jobs
    assert first.seconds_left(NOW) == 400 and first.seconds_left(NOW + 1000) == 0
    (ended, *_) = report_of(run, statuses(run, sft_0=S.CONTINUED), now=NOW).stage("sft").jobs
    assert ended.seconds_left(NOW) is None


def test_a_running_job_that_has_fallen_silent_is_told_from_one_that_has_not(run):
    report_progress(run, "sft-0", done=1, updated_at=NOW - 3600)
    (first, *_) = report_of(run, statuses(run, sft_0=S.RUNNING), now=NOW).stage("sft").jobs
    assert first.silent_seconds(NOW) == 3600
    report_progress(run, "sft-0", done=1, updated_at=NOW - 5)
    (first, *_) = report_of(run, statuses(run, sft_0=S.RUNNING), now=NOW).stage("sft").jobs
    assert first.silent_seconds(NOW) is None


def test_the_running_job_tells_how_far_a_stage_is_else_the_last_that_did(run):
    report_progress(run, "sft-0", done=4)
    told = statuses(run, sft_0=S.CONTINUED, sft_1=S.RUNNING)
    assert report_of(run, told, now=NOW).stage("sft").current.status.job == "sft-1"
    told = statuses(run, sft_0=S.CONTINUED)
    assert report_of(run, told, now=NOW).stage("sft").current.status.job == "sft-0"


def test_why_a_chain_was_stopped_is_read_from_its_note(run):
    (run.folder / "chain" / "sft.stopped").write_text("two jobs in a row made no new step\n")
    report = report_of(run, statuses(run), now=NOW)
    assert report.stage("sft").stopped == "two jobs in a row made no new step"
    assert report.stage("convert").stopped == ""
