"""What a run was made of, in a terminal: whole, however narrow it is."""

from __future__ import annotations

import time

from skills_pipe.pipeline.display.making import show_making
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.records.command_line import CommandLine
from skills_pipe.pipeline.reports.making import RunMaking
from skills_pipe.pipeline.reports.report import report_of
from skills_pipe.pipeline.submit import submit
from tests.pipeline.display.screen import console, shown
from tests.pipeline.programs import job, local, plan_of, shell

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
