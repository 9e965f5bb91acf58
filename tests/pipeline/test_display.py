"""What a person sees: plain lines where there is no terminal, never a script with lines broken."""

from __future__ import annotations

import io
import time
from dataclasses import replace

import pytest
from rich.console import Console

from skills_pipe.artifacts.progress import Progress
from skills_pipe.errors import JobFailed
from skills_pipe.pipeline import display
from skills_pipe.pipeline.checks.preflight import error, warning
from skills_pipe.pipeline.decisions.preview import SubmitFlags, preview
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.plan import Resources
from skills_pipe.pipeline.records.states import JobState, JobStatus
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.submit import submit
from tests.pipeline.programs import job, local, make, plan_of, shell, training_plan


def console(**settings) -> Console:
    return Console(file=io.StringIO(), highlight=False, **settings)


def shown(out: Console) -> str:
    return out.file.getvalue()


def test_a_plan_is_a_tree_of_stages_and_jobs(tmp_path):
    plan = training_plan(tmp_path, "step", jobs=2)
    gpu = replace(
        plan.jobs[0], resources=Resources(num_nodes=2, num_gpus=8, partition="batch", time_limit="0-04:00:00")
    )
    out = console(width=60)
    display.show_plan(preview(replace(plan, jobs=(gpu, *plan.jobs[1:])), local(tmp_path)), console=out)
    assert shown(out).splitlines() == [
        "exp · ns test · exp/run-1",
        "├── sft  run  no output yet",
        "│   ├── sft-0  2 nodes · 8 GPUs · batch · 0-04:00:00",
        "│   └── sft-1  1 node · CPU  if not finished by sft-0",
        "└── convert  run  no output yet",
        "    └── convert  1 node · CPU  after any of sft-0, sft-1",
    ]


def test_findings_are_one_line_each_the_errors_first():
    out = console(width=20)
    display.show_findings(
        [warning("odd", where="--x"), error("wrong " * 20 + "end", where="--y", fix="mend it")], console=out
    )
    assert shown(out).splitlines() == [f"error: {'wrong ' * 20}end (--y): mend it", "warning: odd (--x)"]


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path):
    out = console(width=200)
    display.show_findings([warning("[bold]x[/] and [/oops]")], console=out)
    assert "[bold]x[/] and [/oops]" in shown(out)


def test_scripts_are_printed_byte_for_byte(tmp_path, capsys):
    long = job("a", shell("echo " + "x" * 500), tmp_path)
    seen = preview(plan_of(long), local(tmp_path))
    display.show_scripts(seen)
    assert capsys.readouterr().out == f"==> {seen.run.script_path('a')} <==\n{seen.scripts['a']}\n"


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


@pytest.fixture
def finished(tmp_path) -> Run:
    plan = plan_of(
        job("a", make(tmp_path / "out"), tmp_path), job("b", shell("true"), tmp_path, "a"), a=tmp_path / "out"
    )
    submit(plan, local(tmp_path))
    return Run(submit(plan, local(tmp_path)).run_dir)


def test_the_status_shows_what_ran_and_what_was_finished_before(finished):
    out = console(width=200)
    display.show_status(finished, statuses_of(finished), console=out)
    rows = [line.split() for line in shown(out).splitlines()]
    assert rows[0] == ["exp/run-2"]
    assert rows[2] == ["a", "finished", "before"]
    assert rows[3][:3] == ["b", "b", "succeeded"]
    assert "GPU-h" not in shown(out)


def test_gpu_hours_are_gpus_times_hours(finished):
    now = time.time()
    status = JobStatus(
        job="b", stage="b", state=JobState.SUCCEEDED, gpus=8, started_at=now - 5400, ended_at=now, log="/log"
    )
    out = console(width=200)
    display.show_status(finished, {"b": status}, console=out)
    row = next(line for line in shown(out).splitlines() if line.startswith("b"))
    assert row.split() == ["b", "b", "succeeded", "1:30:00", "12.00"]


def test_a_running_job_shows_how_far_it_is(finished):
    import json
    from dataclasses import asdict

    report = Progress(done=120, total=1000, unit="steps", note="loss 1.25", eta_seconds=4000)
    finished.progress_path("b").write_text(json.dumps(asdict(report)))
    out = console(width=200)
    status = JobStatus(job="b", stage="b", state=JobState.RUNNING, started_at=time.time() - 65)
    display.show_status(finished, {"b": status}, console=out)
    assert "1:05" in shown(out) and "120/1000 steps, loss 1.25, 1:06:40 left" in shown(out)


def test_a_decision_is_explained_on_demand(tmp_path):
    plan = plan_of(job("a", make(tmp_path / "out"), tmp_path), a=tmp_path / "out")
    submit(plan, local(tmp_path))
    changed = replace(plan, stages=(replace(plan.stages[0], options={"lr": 2}),))
    seen = preview(changed, local(tmp_path), SubmitFlags())
    out = console(width=200)
    display.show_decisions(seen.decisions, explain=True, console=out)
    assert "options.lr: (not set) -> 2" in shown(out)
