"""What happened to the rows: one line of figures per processor, as a table and as plain values."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(kw_only=True)
class Tally:
    """Counts of one processor.

    Attributes:
        name: class of the processor, as it stands in the configuration.
        read: rows that came in (lines, for the reader).
        kept: rows that went on.
        modified: rows that went on changed.
        dropped: reason -> rows.
        seconds: time spent in this processor alone.
    """

    name: str
    read: int = 0
    kept: int = 0
    modified: int = 0
    seconds: float = 0.0
    dropped: Counter[str] = field(default_factory=Counter)

    def facts(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return {
            "name": self.name,
            "read": self.read,
            "kept": self.kept,
            "modified": self.modified,
            "dropped": dict(self.dropped),
            "seconds": round(self.seconds, 3),
        }


class Clocked(Generic[T]):
    """An iterable that knows how long its reader waited for it."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)
        self._waited = 0.0

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        start = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self._waited += time.perf_counter() - start

    def take_seconds(self) -> float:
        """Seconds waited since the last call."""
        waited, self._waited = self._waited, 0.0
        return waited


def table(tallies: Iterable[Tally]) -> list[list[str]]:
    """Rows of text, headings first; a processor's reasons for dropping stand below its line."""
    lines = [["processor", "read", "dropped", "modified", "kept", "seconds", "rows/s"]]
    for tally in tallies:
        dropped = sum(tally.dropped.values())
        rate = f"{tally.read / tally.seconds:,.0f}" if tally.seconds > 0 else ""
        counts = [f"{tally.read:,}", f"{dropped:,}", f"{tally.modified:,}", f"{tally.kept:,}"]
        lines.append([tally.name, *counts, f"{tally.seconds:.2f}", rate])
        for reason, count in tally.dropped.most_common():
            lines.append([f"  {reason}", "", f"{count:,}", "", "", "", ""])
    return lines


def print_table(tallies: Iterable[Tally]) -> None:
    """Show the figures: a table with colours on a terminal, aligned columns of plain text elsewhere."""
    from rich.console import Console

    lines = table(tallies)
    console = Console()
    if console.is_terminal:
        console.print(_rich_table(lines))
        return
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("  ".join(cells).rstrip())


def _rich_table(lines: list[list[str]]) -> Any:
    from rich.table import Table

    view = Table(box=None, pad_edge=False, header_style="bold")
    for column, heading in enumerate(lines[0]):
        view.add_column(heading, justify="right" if column else "left", no_wrap=True)
    for line in lines[1:]:
        view.add_row(*line, style="dim" if line[0].startswith("  ") else None)
    return view
