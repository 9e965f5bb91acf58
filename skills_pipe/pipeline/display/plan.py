"""A plan before it runs: the tree of its stages, what was decided for each, findings and scripts."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.text import Text
from rich.tree import Tree

from skills_pipe.pipeline.checks.finding import Finding, Severity
from skills_pipe.pipeline.decisions.decide import Action, Decision
from skills_pipe.pipeline.decisions.preview import Preview
from skills_pipe.pipeline.display.output import console_or_stdout
from skills_pipe.pipeline.plan import EdgeKind, Job, Resources

_ACTION_STYLE = {
    Action.RUN: "green",
    Action.CONTINUE: "cyan",
    Action.RESTART: "yellow",
    Action.SKIP: "dim",
    Action.NOT_NEEDED: "dim",
    Action.REFUSE: "bold red",
}
_EDGE_WORD = {
    EdgeKind.SUCCEEDED: "after",
    EdgeKind.UNFINISHED: "if not finished by",
    EdgeKind.ANY_SUCCEEDED: "after any of",
    EdgeKind.ENDED: "when all have ended:",
}


def show_plan(preview: Preview, *, notes: Sequence[str] = (), console: Console | None = None) -> None:
    """The stages of a plan with what happens to them, and their jobs with resources and edges; then ``notes``."""
    plan = preview.plan
    tree = Tree(f"[bold]{escape(plan.expname)}[/] · ns {escape(plan.command)} · {escape(str(preview.run))}")
    if plan.run_after:
        tree.add(Text(f"after {', '.join(plan.run_after)}"))
    for decision in preview.decisions:
        branch = tree.add(_decision_text(decision))
        if decision.action.runs:
            for job in preview.to_run.jobs_of(decision.stage):
                branch.add(_job_text(job))
    for note in notes:
        tree.add(Text(note, style="dim"))
    # The tree breaks long lines itself, below its own guides; soft wrapping would have them cut off.
    console_or_stdout(console).print(tree)


def show_decisions(decisions: Iterable[Decision], *, explain: bool = False, console: Console | None = None) -> None:
    """The stages that do not simply run, and with ``explain`` all of them with what changed."""
    for decision in decisions:
        if explain or decision.action is not Action.RUN:
            console_or_stdout(console).print(_decision_text(decision, changes=explain), soft_wrap=True)


def show_moved(moved: Iterable[tuple[str, str]], *, console: Console | None = None) -> None:
    """Outputs that are made anew, and where the old ones are now."""
    for before, aside in moved:
        text = Text(f"{before} is made anew; the old one is {aside}", style="yellow")
        console_or_stdout(console).print(text, soft_wrap=True)


def show_findings(findings: Sequence[Finding], *, console: Console | None = None) -> None:
    """Errors first, then warnings; one line each."""
    for finding in sorted(findings, key=lambda finding: finding.severity is not Severity.ERROR):
        style = "bold red" if finding.severity is Severity.ERROR else "yellow"
        console_or_stdout(console).print(Text(str(finding), style=style), soft_wrap=True)


def show_scripts(preview: Preview) -> None:
    """The scripts, byte for byte; each after a line with the path where a submission would put it."""
    for job, text in preview.scripts.items():
        sys.stdout.write(f"==> {preview.run.script_path(job)} <==\n{text}\n")
    queueing = preview.queueing
    if queueing:
        sys.stdout.write(f"==> {preview.run.folder / 'submit.sh'} <==\n{queueing}\n")


def _decision_text(decision: Decision, *, changes: bool = True) -> Text:
    text = Text(decision.stage, style="bold")
    text.append(f"  {decision.action.value}", style=_ACTION_STYLE[decision.action])
    text.append(f"  {decision.reason}", style="not bold")
    if changes:
        for line in decision.changes:
            text.append(f"\n    {line}", style="yellow not bold")
    return text


def _job_text(job: Job) -> Text:
    text = Text(job.name)
    text.append(f"  {_resources_text(job.resources)}", style="dim")
    if job.beside:
        text.append(f"  with {', '.join(member.name for member in job.beside)}", style="dim")
    for kind in EdgeKind:
        names = [edge.upstream for edge in job.edges if edge.kind is kind]
        if names:
            word = _EDGE_WORD[EdgeKind.SUCCEEDED if kind is EdgeKind.ANY_SUCCEEDED and len(names) == 1 else kind]
            text.append(f"  {word} {', '.join(names)}", style="dim")
    return text


def _resources_text(resources: Resources) -> str:
    parts = [f"{resources.num_nodes} node{'s' if resources.num_nodes > 1 else ''}"]
    gpus = f"{resources.num_gpus} GPU{'s' if resources.num_gpus > 1 else ''}" if resources.num_gpus else "CPU"
    parts.append(f"{gpus} each" if resources.num_gpus and resources.num_nodes > 1 else gpus)
    parts += [text for text in (resources.partition, resources.time_limit) if text]
    return " · ".join(parts)
