"""One run on a screen of any width: columns, details behind or below them, what to do next."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from skills_pipe.artifacts.metrics import Curve
from skills_pipe.pipeline.display.runs import show_runs
from skills_pipe.pipeline.display.status import show_advice, show_curve, show_status
from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.reports.report import report_of
from tests.pipeline.display.screen import console, shown
from tests.pipeline.programs import job, make, plan_of, shell, training_plan
from tests.pipeline.reports.recorded import recorded, report_progress, statuses, warn

S = JobState
NOW = time.mktime((2026, 5, 1, 18, 0, 0, 0, 0, -1))


@pytest.fixture
def training(tmp_path):
    """A chain in its second segment, on 8 GPUs."""
    run = recorded(tmp_path, training_plan(tmp_path, "step", jobs=3), at=NOW - 20_000)
    told = statuses(run, sft_0=S.CONTINUED, sft_1=S.RUNNING)
    told["sft-0"] = replace(
        told["sft-0"], gpus=8, started_at=NOW - 18_000, ended_at=NOW - 3600, reason="the time is up"
    )
    told["sft-1"] = replace(told["sft-1"], gpus=8, started_at=NOW - 1800, nodes="node3", deadline=NOW + 7200)
    report_progress(
        run,
        "sft-1",
        done=460,
        total=1000,
        loss=1.2345,
        tokens_per_second=5612.0,
        checkpoint=450,
        eta_seconds=4800.0,
        updated_at=NOW,
    )
    return report_of(run, told, now=NOW)


def test_a_pipe_gets_one_line_for_each_stage_and_job(training):
    out = console(width=1000)
    show_status(training, console=out)
    assert shown(out).splitlines()[:6] == [
        "exp/run-1 · ns test · submitted 2026-05-01 12:26 · 36.00 GPU-hours",
        "sft      running    4:30:00  36.00 GPU-h  segment 2 of 3",
        "  sft-0  continued  4:00:00  32.00 GPU-h  the time is up",
        "  sft-1  running      30:00   4.00 GPU-h  460/1000 steps · loss 1.234 · 5.61k tokens/s · 1:20:00 left · "
        "checkpoint at step 450 · may run until 20:00 · on node3",
        "  sft-2  pending                          runs only if sft-1 does not finish the work",
        "convert  pending                          waits for one of sft-1, sft-2",
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_of_any_width_gets_no_line_that_is_longer(training, width):
    out = console(width=width, force_terminal=True, color_system=None)
    show_status(training, console=out)
    lines = [line for line in shown(out).splitlines() if not line.startswith("log of")]
    assert max(len(line) for line in lines) <= width
    assert "loss 1.234" in shown(out) and "━" in shown(out)
    words = shown(out).split()
    assert words.count("sft-1") >= 1 and "5.61k" in words


@pytest.mark.parametrize("width", [60, 1000])
def test_warnings_stand_below_the_jobs_of_their_stage(tmp_path, width):
    run = recorded(tmp_path, training_plan(tmp_path, "step", jobs=2), at=NOW)
    for name in ("sft-0", "sft-1"):
        warn(run, name, "no [bold] answer ends with a stop token, so the model will not learn to stop: add some")
    out = console(width=width, force_terminal=width < 100, color_system=None)
    show_status(report_of(run, statuses(run, sft_0=S.CONTINUED, sft_1=S.RUNNING), now=NOW), console=out)
    lines = shown(out).splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("      warning: no [bold] answer"))
    (stage,) = (index for index, line in enumerate(lines) if line.startswith("convert"))
    assert lines[first - 1].startswith("  sft-1") and max(map(len, lines[first:stage])) <= width
    words = " ".join(line.strip() for line in lines[first:stage])
    assert words == "warning: no [bold] answer ends with a stop token, so the model will not learn to stop: add some"


def test_a_job_on_its_own_is_named_by_its_stage(tmp_path):
    plan = plan_of(job("a", make(tmp_path / "out"), tmp_path), job("b", shell("true"), tmp_path, "a"))
    run = recorded(tmp_path, plan, skipped=("a",))
    out = console(width=200)
    show_status(report_of(run, statuses(run, b=S.SUCCEEDED), now=NOW), console=out)
    rows = shown(out).splitlines()
    assert rows[1:3] == ["a  finished before", "b  succeeded"]
    assert "GPU" not in shown(out), "nothing is said of GPUs where there are none"


def test_one_stage_can_be_shown_alone(training):
    out = console(width=200)
    show_status(training, only="convert", console=out)
    assert "sft-0" not in shown(out) and "convert  pending" in shown(out)


def test_a_deadline_of_another_day_names_it(training):
    stage = training.stages[0]
    late = replace(stage.jobs[1], status=replace(stage.jobs[1].status, deadline=NOW + 86_400))
    report = replace(training, stages=(replace(stage, jobs=(late,)),))
    out = console(width=300)
    show_status(report, console=out)
    assert "may run until Sat 18:00" in shown(out)


def test_a_silent_job_is_conspicuous(training):
    out = console(width=300)
    show_status(replace(training, now=NOW + 1200), console=out)
    assert "no news for 20:00" in shown(out)


def test_logs_are_those_of_jobs_that_have_begun(training):
    out = console(width=300)
    show_status(training, console=out)
    logs = [line.split(":")[0] for line in shown(out).splitlines() if line.startswith("log of")]
    assert logs == ["log of sft-0", "log of sft-1"]


def test_words_that_look_like_markup_are_shown_as_they_are(tmp_path):
    run = recorded(tmp_path, plan_of(job("a", shell("true"), tmp_path)))
    told = {"a": replace(statuses(run, a=S.FAILED)["a"], reason="[red]x[/] [/oops]")}
    out = console(width=300)
    show_status(report_of(run, told, now=NOW), console=out)
    show_advice(["see [bold]"], console=out)
    assert "[red]x[/] [/oops]" in shown(out) and "-> see [bold]" in shown(out)


def test_the_loss_is_drawn_within_the_width_of_the_screen():
    steps = tuple(range(1, 200))
    loss = Curve(steps=steps, values=tuple(1 / step for step in steps))
    out = console(width=60)
    show_curve(loss, Curve(steps=(), values=()), console=out)
    assert "training loss, smoothed, by step" in shown(out) and "199" in shown(out)
    assert max(len(line) for line in shown(out).splitlines()) <= 60


def test_runs_are_listed_with_their_stages(training):
    out = console(width=200)
    show_runs([training], hidden=3, console=out)
    head, row, older = shown(out).splitlines()
    assert head.split() == ["run", "submitted", "command", "GPU-h", "stages"]
    assert row.split() == ["exp/run-1", "2026-05-01", "12:26", "test", "36.00", "sft", "running,", "convert", "pending"]
    assert older == "and 3 older ones (--last=N, or --all)"
