"""How far the tokenising of a large data set is: a line that moves on a terminal, lines now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final

import rich
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from skills_pipe.artifacts.progress import Progress as Report
from skills_pipe.artifacts.progress import ProgressReporter
from skills_pipe.artifacts.units import compact

_PATIENCE_SECONDS: Final = 2.0
"""Work that takes less is not worth a word."""

_SECONDS_BETWEEN_LINES: Final = 20.0


class TokenizingProgress:
    """Shows rows and tokens; says nothing about work that is done in a moment, nor when not ``shown``."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._began = time.monotonic()
        self._last_line = self._began
        self._console = rich.get_console()
        self._reporter = ProgressReporter()
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> TokenizingProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, *, rows: int, tokens: int) -> None:
        """Say how many rows have been read, and how many tokens they gave."""
        now = time.monotonic()
        if not self._shown or now - self._began < _PATIENCE_SECONDS:
            return
        note = f"{rows:,} rows, {compact(tokens)} tokens, {rows / (now - self._began):,.0f} rows/s"
        self._reporter.report(Report(done=rows, total=0, unit="rows", note="tokenising"))
        if self._console.is_terminal:
            self._move(note)
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._console.print(f"tokenising: {note}", highlight=False, soft_wrap=True)

    def _move(self, note: str) -> None:
        if self._bar is None:
            columns = (TextColumn("tokenising"), SpinnerColumn(), TextColumn("{task.fields[note]}"))
            self._bar = Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True)
            self._task = self._bar.add_task("", total=None, note=note)
            self._bar.start()
        self._bar.update(self._task, note=note)
