"""What a person sees of plans and runs: trees and tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from skills_pipe.artifacts.progress import Progress
from skills_pipe.pipeline.checks.preflight import Finding, Severity
from skills_pipe.pipeline.decisions.decide import Action, Decision
from skills_pipe.pipeline.decisions.preview import Preview
from skills_pipe.pipeline.plan import EdgeKind, Job, Resources
from skills_pipe.pipeline.records.failures import tail
from skills_pipe.pipeline.records.states import JobState, JobStatus, stage_state
from skills_pipe.pipeline.records.store import Run

_ACTION_STYLE = {
    Action.RUN: "green",
    Action.CONTINUE: "cyan",
    Action.RESTART: "yellow",
    Action.SKIP: "dim",
    Action.NOT_NEEDED: "dim",
    Action.REFUSE: "bold red",
}
_STATE_STYLE = {
    JobState.PENDING: "dim",
    JobState.RUNNING: "cyan",
    JobState.SUCCEEDED: "green",
    JobState.CONTINUED: "cyan",
    JobState.FAILED: "bold red",
    JobState.CANCELLED: "yellow",
    JobState.NOT_NEEDED: "dim",
    JobState.LOST: "bold red",
}
_EDGE_WORD = {
    EdgeKind.SUCCEEDED: "after",
    EdgeKind.UNFINISHED: "if not finished by",
    EdgeKind.ANY_SUCCEEDED: "after any of",
}

_PIPE_WIDTH = 1000

_LINES_EVERY = 30.0
"""Seconds between two reports of progress where the output is no terminal."""


def show_plan(preview: Preview, *, console: Console | None = None) -> None:
    """The stages of a plan with what happens to them, and their jobs with resources and edges."""
    plan = preview.plan
    tree = Tree(f"[bold]{escape(plan.expname)}[/] · ns {escape(plan.command)} · {escape(str(preview.run))}")
    if plan.run_after:
        tree.add(Text(f"after {', '.join(plan.run_after)}"))
    for decision in preview.decisions:
        branch = tree.add(_decision_text(decision))
        if decision.action.runs:
            for job in preview.to_run.jobs_of(decision.stage):
                branch.add(_job_text(job))
    _out(console).print(tree, soft_wrap=True)


def show_decisions(decisions: Iterable[Decision], *, explain: bool = False, console: Console | None = None) -> None:
    """The stages that do not simply run, and with ``explain`` all of them with what changed."""
    for decision in decisions:
        if explain or decision.action is not Action.RUN:
            _out(console).print(_decision_text(decision, changes=explain), soft_wrap=True)


def show_findings(findings: Sequence[Finding], *, console: Console | None = None) -> None:
    """Errors first, then warnings; one line each."""
    for finding in sorted(findings, key=lambda finding: finding.severity is not Severity.ERROR):
        style = "bold red" if finding.severity is Severity.ERROR else "yellow"
        _out(console).print(Text(str(finding), style=style), soft_wrap=True)


def show_scripts(preview: Preview) -> None:
    """The scripts, byte for byte; each after a line with the path where a submission would put it."""
    for job, text in preview.scripts.items():
        sys.stdout.write(f"==> {preview.run.script_path(job)} <==\n{text}\n")


def show_runs(
    runs: Sequence[tuple[Run, Mapping[str, JobStatus]]], *, hidden: int = 0, console: Console | None = None
) -> None:
    """One line for each run: stages and their states. ``hidden`` is how many older ones are not shown."""
    if not runs:
        _out(console).print("nothing was submitted yet")
        return
    table = Table("run", "submitted", "command", "stages", box=None, pad_edge=False)
    for run, statuses in runs:
        record = run.submission
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.submitted_at)) if record else ""
        table.add_row(str(run), when, run.plan.command, _stages_text(run, statuses))
    _out(console).print(table)
    if hidden > 0:
        _out(console).print(f"and {hidden} older ones (--last)")


def show_status(run: Run, statuses: Mapping[str, JobStatus], *, console: Console | None = None) -> None:
    """All jobs of a run in a table, then where their logs are."""
    out = _out(console)
    out.print(status_table(run, statuses, now=time.time()))
    for status in statuses.values():
        if status.log and status.started_at is not None:
            out.print(Text(f"{status.job}: {status.log}", style="dim"), soft_wrap=True)


def status_table(run: Run, statuses: Mapping[str, JobStatus], *, now: float) -> Table:
    """Stage, job, state, time, GPU-hours and progress of every job of a run."""
    with_gpus = any(status.gpus for status in statuses.values())
    columns = ["stage", "job", "state", "elapsed", *(["GPU-h"] if with_gpus else []), "progress"]
    table = Table(*columns, box=None, pad_edge=False, title=str(run), title_justify="left")
    record = run.submission
    actions = record.actions if record else {}
    for stage in run.plan.stages:
        own = [statuses[job.name] for job in run.plan.jobs_of(stage.name) if job.name in statuses]
        if not own:
            table.add_row(stage.name, "", Text(_skipped_word(actions.get(stage.name)), style="dim"))
        for status in own:
            elapsed = status.elapsed(now)
            hours = [f"{status.gpus * (elapsed or 0) / 3600:.2f}"] if with_gpus else []
            note = _progress_text(run.progress(status.job)) if status.state is JobState.RUNNING else status.reason
            table.add_row(stage.name, status.job, _state_text(status.state), _duration(elapsed), *hours, note)
    return table


class LiveBoard:
    """Shows the jobs of a run while they run: a table that redraws itself, or a line for each change."""

    def __init__(self, *, console: Console | None = None) -> None:
        self._console = _out(console)
        self._live: Live | None = None
        self._states: dict[str, JobState] = {}
        self._drawn = 0.0
        self._reported: dict[str, float] = {}

    def __enter__(self) -> LiveBoard:
        if self._console.is_terminal:
            # No thread of its own: it is drawn when told.
            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, run: Run, statuses: Mapping[str, JobStatus]) -> None:
        """Show the states of all jobs."""
        states = {name: status.state for name, status in statuses.items()}
        changed = [statuses[name] for name, state in states.items() if self._states.get(name) is not state]
        self._states = states
        if self._live is not None:
            if changed or time.monotonic() - self._drawn > 0.25:
                self._drawn = time.monotonic()
                self._live.update(_live_table(run, statuses), refresh=True)
            return
        for status in changed:
            if status.state is not JobState.PENDING:
                self._line(_change_text(status))
        self._report_progress(run, statuses)

    def _report_progress(self, run: Run, statuses: Mapping[str, JobStatus]) -> None:
        for name, status in statuses.items():
            if status.state is JobState.RUNNING:
                last = self._reported.setdefault(name, time.monotonic())
                text = _progress_text(run.progress(name))
                if text and time.monotonic() - last >= _LINES_EVERY:
                    self._reported[name] = time.monotonic()
                    self._line(Text(f"{name}: {text}"))

    def _line(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


def _live_table(run: Run, statuses: Mapping[str, JobStatus]) -> RenderableType:
    running = [status for status in statuses.values() if status.state is JobState.RUNNING and status.log]
    parts: list[RenderableType] = [status_table(run, statuses, now=time.time())]
    for status in running:
        last = tail(Path(status.log or ""), 1)
        if last:
            parts.append(Text(f"{status.job} | {last[-1]}", style="dim", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _out(console: Console | None) -> Console:
    if console is not None:
        return console
    # A file or a pipe has no width: nothing is cut or wrapped there.
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_PIPE_WIDTH)


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
    for kind in EdgeKind:
        names = [edge.upstream for edge in job.edges if edge.kind is kind]
        if names:
            text.append(f"  {_EDGE_WORD[kind]} {', '.join(names)}", style="dim")
    return text


def _resources_text(resources: Resources) -> str:
    parts = [f"{resources.num_nodes} node{'s' if resources.num_nodes > 1 else ''}"]
    parts.append(f"{resources.num_gpus} GPU{'s' if resources.num_gpus > 1 else ''}" if resources.num_gpus else "CPU")
    parts += [text for text in (resources.partition, resources.time_limit) if text]
    return " · ".join(parts)


def _stages_text(run: Run, statuses: Mapping[str, JobStatus]) -> Text:
    record = run.submission
    actions = record.actions if record else {}
    parts = []
    for stage in run.plan.stages:
        state = stage_state(run.plan, stage.name, statuses)
        word = _state_text(state) if state else Text(_skipped_word(actions.get(stage.name)), style="dim")
        parts.append(Text(f"{stage.name} ").append_text(word))
    return Text(", ").join(parts)


def _skipped_word(action: str | None) -> str:
    return {"skip": "finished before", "not needed": "not needed"}.get(action or "", "not submitted")


def _state_text(state: JobState) -> Text:
    return Text(state.value, style=_STATE_STYLE[state])


def _change_text(status: JobStatus) -> Text:
    text = Text(f"{status.job}: ").append_text(_state_text(status.state))
    if status.state is JobState.RUNNING and status.log:
        text.append(f", log {status.log}")
    if status.started_at is not None and status.ended_at is not None:
        text.append(f" after {_duration(status.ended_at - status.started_at)}")
    return text.append(f": {status.reason}") if status.reason else text


def _progress_text(progress: Progress | None) -> str:
    if progress is None:
        return ""
    total = f"/{progress.total}" if progress.total else ""
    left = f", {_duration(progress.eta_seconds)} left" if progress.eta_seconds is not None else ""
    note = f", {progress.note}" if progress.note else ""
    return f"{progress.done}{total} {progress.unit}{note}{left}"


def _duration(seconds: float | None) -> str:
    """``4.2s``, ``3:25``, ``2:03:25``."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
