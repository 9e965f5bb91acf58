"""A run while somebody watches it: a picture that redraws itself, or without a terminal a line for each change."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from skills_pipe.pipeline.display.output import STATE_STYLE, console_or_stdout, duration
from skills_pipe.pipeline.display.status import progress_text, status_lines, warning_text
from skills_pipe.pipeline.records.failures import tail
from skills_pipe.pipeline.records.states import JobState, JobStatus
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.reports.report import RunReport, report_of

_LINES_EVERY = 30.0
"""Seconds between two reports of progress where the output is no terminal."""
_REDRAW_SECONDS = 0.25


class LiveBoard:
    """Shows the jobs of a run while they run."""

    def __init__(self, *, console: Console | None = None) -> None:
        self._console = console_or_stdout(console)
        self._live: Live | None = None
        self._states: dict[str, JobState] = {}
        self._drawn = 0.0
        self._reported: dict[str, float] = {}
        self._warned: set[tuple[str, str]] = set()

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
            if changed or time.monotonic() - self._drawn > _REDRAW_SECONDS:
                self._drawn = time.monotonic()
                self._live.update(self._picture(report_of(run, statuses, now=time.time())), refresh=True)
            return
        for status in changed:
            if status.state is not JobState.PENDING:
                self._line(_change_text(status))
        told = {status.job for status in changed}
        self._warn(run, [each for each in statuses.values() if each.job in told or each.state is JobState.RUNNING])
        self._report_progress(run, statuses)

    def say(self, text: str) -> None:
        """A line beside the states."""
        self._line(Text(text, style="yellow"))

    def _picture(self, report: RunReport) -> RenderableType:
        parts = status_lines(report, console=self._console)
        for job in (job for stage in report.stages for job in stage.jobs):
            last = tail(Path(job.status.log), 1) if job.status.log and job.status.state is JobState.RUNNING else []
            if last:
                parts.append(Text(f"{job.status.job} | {last[-1]}", style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*parts)

    def _warn(self, run: Run, statuses: Sequence[JobStatus]) -> None:
        """What jobs warn of, a line for each sentence; the jobs of a chain say the same."""
        for status in statuses:
            for sentence in run.warnings(status.job):
                if (status.stage, sentence) not in self._warned:
                    self._warned.add((status.stage, sentence))
                    self._line(Text(f"{status.job}: ").append_text(warning_text(sentence)))

    def _report_progress(self, run: Run, statuses: Mapping[str, JobStatus]) -> None:
        for name, status in statuses.items():
            if status.state is not JobState.RUNNING:
                continue
            last = self._reported.setdefault(name, time.monotonic())
            if time.monotonic() - last < _LINES_EVERY:
                continue
            report = report_of(run, {name: status}, now=time.time())
            text = next((progress_text(job, report.now) for stage in report.stages for job in stage.jobs), Text())
            if text:
                self._reported[name] = time.monotonic()
                self._line(Text(f"{name}: ").append_text(text))

    def _line(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


def _change_text(status: JobStatus) -> Text:
    text = Text(f"{status.job}: ").append(status.state.value, style=STATE_STYLE[status.state])
    if status.state is JobState.RUNNING and status.log:
        text.append(f", log {status.log}")
    if status.started_at is not None and status.ended_at is not None:
        text.append(f" after {duration(status.ended_at - status.started_at)}")
    return text.append(f": {status.reason}") if status.reason else text
