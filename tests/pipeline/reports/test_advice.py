"""Each thing that went wrong is a sentence that says what to do next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.reports.advice import Typed, advice
from skills_pipe.pipeline.reports.report import report_of
from tests.pipeline.programs import training_plan
from tests.pipeline.reports.recorded import recorded, report_progress, statuses

S = JobState
NOW = 10_000.0
TYPED = Typed(name="exp", cluster="slurm")


@pytest.fixture
def run(tmp_path):
    return recorded(tmp_path, training_plan(tmp_path, "step", jobs=2))


def told(run, given):
    return advice(report_of(run, given, now=NOW), TYPED)


def test_nothing_is_said_while_all_goes_well_or_has_gone_well(run):
    assert told(run, statuses(run, sft_0=S.RUNNING)) == ()
    good = statuses(run, sft_0=S.CONTINUED, sft_1=S.SUCCEEDED, convert=S.SUCCEEDED)
    assert told(run, good) == ()


def test_a_failed_job_is_named_with_its_log_and_the_way_on(run):
    given = statuses(run, sft_0=S.FAILED, sft_1=S.FAILED, convert=S.CANCELLED)
    given["sft-1"] = replace(given["sft-1"], reason="exit code 1")
    report_progress(run, "sft-0", checkpoint=40)
    (run.folder / "chain" / "sft.stopped").write_text("two jobs in a row made no new step")
    assert told(run, given) == (
        "the chain of sft was stopped: two jobs in a row made no new step",
        "sft-1 failed (exit code 1); its last checkpoint is step 40: `ns logs exp sft --cluster=slurm` shows its end; "
        "when that is mended, `ns resume exp --cluster=slurm`",
    )


def test_a_chain_that_was_too_short_says_how_to_lengthen_it(run):
    given = statuses(run, sft_0=S.CONTINUED, sft_1=S.CONTINUED, convert=S.CANCELLED)
    report_progress(run, "sft-1", checkpoint=80)
    assert told(run, given) == (
        "sft has used up its jobs before its work was done; its last checkpoint is step 80: "
        "`ns resume exp --num_training_jobs=1 --cluster=slurm` adds one, or as many as you say",
    )


def test_a_lost_job_says_where_to_look(run):
    (sentence, *_) = told(run, statuses(run, sft_0=S.LOST, sft_1=S.CANCELLED, convert=S.CANCELLED))
    assert sentence.startswith("nobody knows how sft-0 ended") and "`ns logs exp sft" in sentence


def test_what_can_never_start_is_to_be_taken_away(run):
    given = statuses(run, sft_0=S.FAILED, sft_1=S.FAILED)
    given["convert"] = replace(given["convert"], reason="DependencyNeverSatisfied")
    assert any(
        "convert can never start" in sentence and "`ns cancel exp --stage=convert --cluster=slurm`" in sentence
        for sentence in told(run, given)
    )


def test_a_held_job_says_who_can_let_it_go(run):
    given = statuses(run)
    given["sft-0"] = replace(given["sft-0"], reason="JobHeldUser")
    assert told(run, given) == ("sft-0 is held by its owner: `scontrol release 100` lets it go",)


def test_a_requeued_job_that_still_runs_is_no_riddle(run):
    given = statuses(run, sft_0=S.RUNNING)
    given["sft-0"] = replace(given["sft-0"], restarts=2)
    (sentence,) = told(run, given)
    assert sentence.startswith("sft-0 was requeued 2 times")


def test_a_cancelled_run_can_be_taken_up_again(run):
    assert told(run, statuses(run, sft_0=S.CANCELLED, sft_1=S.CANCELLED, convert=S.CANCELLED)) == (
        "`ns resume exp --cluster=slurm` submits what is not finished again",
    )


def test_a_run_that_was_not_submitted_says_so(run):
    (run.folder / "submission.json").unlink()
    (sentence,) = told(run, {})
    assert "was not submitted" in sentence


def test_without_a_cluster_none_is_named():
    assert Typed(name="exp/run-2").command("logs", "sft") == "`ns logs exp/run-2 sft`"
