"""What a process that tokenises is asked to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from skills_pipe.training.data.records.base import Records
from skills_pipe.training.data.records.lines import JsonLines
from skills_pipe.training.data.records.tables import ArrowTable
from skills_pipe.training.data.rows import Row
from skills_pipe.training.data.sources import DataSource, read_rows

_ROWS: Final = 256
"""Rows of one task."""

_LAST: Final[list[tuple[DataSource, Records]]] = []


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Rows that the process reads itself: those of a file from ``start`` up to ``stop``."""

    source: DataSource
    start: int
    stop: int

    def rows(self) -> Iterator[Row]:
        """The rows."""
        return read_rows(self.source, self.start, self.stop, records=_opened(self.source))


@dataclass(frozen=True, kw_only=True)
class Handed:
    """Rows that are sent to the process: of a file that can only be read from its start."""

    read: tuple[Row, ...]

    def rows(self) -> Iterator[Row]:
        """The rows."""
        return iter(self.read)


Task = Stretch | Handed


def tasks(sources: Sequence[DataSource]) -> Iterator[Task]:
    """All rows of ``sources`` in their order, cut into tasks.

    Raises:
        DataError: a file cannot be read.
    """
    for source in sources:
        records = source.open()
        if isinstance(records, (JsonLines, ArrowTable)):
            count = len(records)
            yield from (
                Stretch(source=source, start=start, stop=min(start + _ROWS, count)) for start in range(0, count, _ROWS)
            )
        else:
            yield from _handed(read_rows(source))


def _opened(source: DataSource) -> Records:
    """The file of a source; the last one stays open, for its stretches come one after the other."""
    if not _LAST or _LAST[0][0] != source:
        _LAST[:] = [(source, source.open())]
    return _LAST[0][1]


def _handed(rows: Iterable[Row]) -> Iterator[Handed]:
    rows = iter(rows)
    while read := tuple(islice(rows, _ROWS)):
        yield Handed(read=read)
