"""How far an evaluation is: a bar on a terminal, lines in a log, and the report that the launcher shows."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from skills_pipe.artifacts.progress import Progress, ProgressReporter

_LINE_EVERY = 30.0
"""Seconds between two lines in a log."""


class Watch:
    """Counts answers.

    Args:
        title: what is evaluated.
        total: number of answers to come, those of earlier processes included.
        done: number of answers that are there already.
    """

    def __init__(self, title: str, *, total: int, done: int) -> None:
        self._title = title
        self._total = total
        self._first = done
        self._done = done
        self._tokens = 0
        self._started = time.monotonic()
        self._last_line = self._started
        self._reporter = ProgressReporter()
        console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, completed=done, note="")

    def __enter__(self) -> Watch:
        self._bar.start()
        self._report(now=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bar.stop()
        self._report(now=True)

    def advance(self, tokens: int) -> None:
        """One more answer, of so many tokens."""
        self._done += 1
        self._tokens += tokens
        self._bar.update(self._task, completed=self._done, note=self._note())
        self._report(now=self._done == self._total)
        moment = time.monotonic()
        if self._bar.disable and moment - self._last_line >= _LINE_EVERY:
            self._last_line = moment
            print(f"{self._title}: {self._done} of {self._total}, {self._note()}", file=sys.stderr, flush=True)

    def _note(self) -> str:
        return f"{self._tokens / max(time.monotonic() - self._started, 1e-9):.0f} tokens/s"

    def _report(self, *, now: bool) -> None:
        new = self._done - self._first
        elapsed = time.monotonic() - self._started
        eta = elapsed / new * (self._total - self._done) if new else None
        note = f"{self._title}, {self._note()}"
        report = Progress(done=self._done, total=self._total, unit="problems", note=note, eta_seconds=eta)
        self._reporter.report(report, now=now)
