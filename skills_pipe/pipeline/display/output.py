"""Where a person sees something: a terminal with a width and colours, or a pipe without either."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from skills_pipe.pipeline.records.states import JobState

STATE_STYLE = {
    JobState.PENDING: "dim",
    JobState.RUNNING: "cyan",
    JobState.SUCCEEDED: "green",
    JobState.CONTINUED: "cyan",
    JobState.FAILED: "bold red",
    JobState.CANCELLED: "yellow",
    JobState.NOT_NEEDED: "dim",
    JobState.LOST: "bold red",
}

_PIPE_WIDTH = 100_000


def console_or_stdout(console: Console | None) -> Console:
    """``console``, or standard output when there is none."""
    if console is not None:
        return console
    # A file or a pipe has no width: nothing is cut or wrapped there.
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    # Names are shown as they are: ":key:" in a path is no picture.
    return Console(highlight=False, emoji=False, width=width)


def print_table(table: Table, out: Console) -> None:
    """A table, without the blanks that fill its last column: who pipes it gets the words alone."""
    for line in out.render_lines(table, pad=False):
        text = Text.assemble(*((segment.text, segment.style or "") for segment in line))
        text.rstrip()
        out.print(text, soft_wrap=True)


def duration(seconds: float | None) -> str:
    """``4.2s``, ``3:25``, ``2:03:25``; a day and more as ``1-02:03``, days, hours and minutes; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, of_day = divmod(hours, 24)
    if days:
        return f"{days}-{of_day:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
