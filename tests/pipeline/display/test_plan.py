"""What a person sees of a plan: a tree, findings in a line each, never a script with lines broken."""

from __future__ import annotations

from dataclasses import replace

from skills_pipe.pipeline.checks.finding import error, warning
from skills_pipe.pipeline.decisions.preview import SubmitFlags, preview
from skills_pipe.pipeline.display.plan import show_decisions, show_findings, show_plan, show_scripts
from skills_pipe.pipeline.plan import Resources
from skills_pipe.pipeline.submit import submit
from tests.pipeline.display.screen import console, shown
from tests.pipeline.programs import job, local, make, plan_of, shell, training_plan


def test_a_plan_is_a_tree_of_stages_and_jobs(tmp_path):
    plan = training_plan(tmp_path, "step", jobs=2)
    gpu = replace(
        plan.jobs[0], resources=Resources(num_nodes=2, num_gpus=8, partition="batch", time_limit="0-04:00:00")
    )
    out = console(width=60)
    show_plan(preview(replace(plan, jobs=(gpu, *plan.jobs[1:])), local(tmp_path)), console=out)
    assert shown(out).splitlines() == [
        "exp · ns test · exp/run-1",
        "├── sft  run  no output yet",
        "│   ├── sft-0  2 nodes · 8 GPUs each · batch · 0-04:00:00",
        "│   └── sft-1  1 node · CPU  if not finished by sft-0",
        "└── convert  run  no output yet",
        "    └── convert  1 node · CPU  after any of sft-0, sft-1",
    ]


def test_what_does_not_fit_a_terminal_goes_on_below_and_is_never_cut(tmp_path):
    plan = training_plan(tmp_path, "step", jobs=3)
    out = console(width=40, force_terminal=True, color_system=None)
    show_plan(preview(plan, local(tmp_path)), notes=["about 17 GiB on each GPU (weights 4, optimizer 8)"], console=out)
    lines = shown(out).splitlines()
    assert max(map(len, lines)) <= 40
    assert [line.rstrip() for line in lines[5:7]] == [
        "│   └── sft-2  1 node · CPU  if not",
        "│       finished by sft-0, sft-1",
    ]
    assert " ".join(line.strip("│├└─ ") for line in lines[-2:]) == ("about 17 GiB on each GPU (weights 4, optimizer 8)")


def test_a_chain_of_one_job_is_no_choice(tmp_path):
    out = console(width=200)
    show_plan(preview(training_plan(tmp_path, "step", jobs=1), local(tmp_path)), console=out)
    assert "convert  1 node · CPU  after sft-0" in shown(out)


def test_findings_are_one_line_each_the_errors_first():
    out = console(width=20)
    show_findings([warning("odd", where="--x"), error("wrong " * 20 + "end", where="--y", fix="mend it")], console=out)
    assert shown(out).splitlines() == [f"error: {'wrong ' * 20}end (--y): mend it", "warning: odd (--x)"]


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path):
    out = console(width=200)
    show_findings([warning("[bold]x[/] and [/oops]")], console=out)
    assert "[bold]x[/] and [/oops]" in shown(out)


def test_scripts_are_printed_byte_for_byte(tmp_path, capsys):
    long = job("a", shell("echo " + "x" * 500), tmp_path)
    seen = preview(plan_of(long), local(tmp_path))
    show_scripts(seen)
    assert capsys.readouterr().out == f"==> {seen.run.script_path('a')} <==\n{seen.scripts['a']}\n"


def test_a_decision_is_explained_on_demand(tmp_path):
    plan = plan_of(job("a", make(tmp_path / "out"), tmp_path), a=tmp_path / "out")
    submit(plan, local(tmp_path))
    changed = replace(plan, stages=(replace(plan.stages[0], options={"lr": 2}),))
    seen = preview(changed, local(tmp_path), SubmitFlags())
    out = console(width=200)
    show_decisions(seen.decisions, explain=True, console=out)
    assert "option lr: (not set) -> 2" in shown(out)
