"""What a run was made of, in a terminal: whole, however narrow it is."""

from __future__ import annotations

import time
from dataclasses import replace

from skills_pipe.pipeline.display.making import show_making
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.records.command_line import CommandLine
from skills_pipe.pipeline.reports.making import RunMaking, making_of
from skills_pipe.pipeline.reports.report import report_of
from skills_pipe.pipeline.submit import submit
from tests.pipeline.display.screen import console, shown
from tests.pipeline.programs import job, local, make, plan_of, shell

WORDS = [f"--option_{number}=value" for number in range(12)]


def test_a_long_command_goes_on_below(tmp_path):
    run = submit(plan_of(job("a", shell("true"), tmp_path)), local(tmp_path)).run
    report = report_of(run, statuses_of(run), now=time.time())
    command = CommandLine(words=("run_cmd", *WORDS), folder="/home/me", version="1")
    making = RunMaking(report=report, command=command, code=None, stages=())
    out = console(width=60, force_terminal=True, color_system=None)
    show_making(making, console=out)
    assert all(word in shown(out) for word in WORDS)
    assert max(map(len, shown(out).splitlines())) <= 60


def test_what_another_stage_of_the_run_has_made_is_told_by_its_name(tmp_path):
    """What it was made of stands at that stage, once."""
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    plan = plan_of(job("a", make(first), tmp_path), job("b", make(second), tmp_path, "a"), a=first, b=second)
    plan = replace(plan, stages=(replace(plan.stages[0], options={"text": "x"}), plan.stages[1]))
    run = submit(plan, local(tmp_path)).run
    out = console(width=200)
    show_making(making_of(run, report_of(run, statuses_of(run), now=time.time()), local(tmp_path)), console=out)
    text = shown(out)
    assert f"input  {first}  of stage a" in text
    assert text.count("text = x") == 1
