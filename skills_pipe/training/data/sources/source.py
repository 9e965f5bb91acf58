"""One file of a data set: where it is, how its rows are read, and which of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from skills_pipe.artifacts.rows import Form
from skills_pipe.training.data.records.base import Records
from skills_pipe.training.data.records.opening import open_records
from skills_pipe.training.data.rows import BadRow, Conversation, Pieces, Row
from skills_pipe.training.data.sources.conversations import Conversations
from skills_pipe.training.data.sources.holdout import HoldOut


class RowFormat(Protocol):
    """What a value of a file means."""

    def rows(self, value: Any, where: str) -> Iterable[Row]:
        """What is trained on for one value: usually one row, of a tree of messages several."""
        ...


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Rows of one file; it can be sent to another process, and read there in part.

    Attributes:
        path: see :func:`records.opening.open_records`.
        format: how its values are read.
        part: which of its rows are meant, None for all.
        preserving: keep each row as it is; see :func:`records.opening.open_records`.
    """

    path: Path
    format: RowFormat = field(default_factory=Conversations)
    part: HoldOut | None = None
    preserving: bool = True

    def open(self) -> Records:
        """The file's rows as they are, of every part.

        Raises:
            DataError: there is no such file, or it is of no known kind.
        """
        return open_records(self.path, preserving=self.preserving)


def read_rows(
    source: DataSource, start: int = 0, stop: int | None = None, *, records: Records | None = None
) -> Iterator[Row]:
    """Read the rows of a file, in its order, without holding them all.

    Args:
        source: the file.
        start: number of the first row of the file to read.
        stop: number of the row to stop before, None for the end of the file.
        records: what ``source.open()`` gave, for those who read many parts of a file.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    for number, (where, value) in enumerate((records or source.open()).read(start, stop), start=start):
        if source.part is not None and number not in source.part:
            continue
        if isinstance(value, BadRow):
            yield value
        else:
            yield from source.format.rows(value, where)


def first_row(sources: Iterable[DataSource]) -> Conversation | Pieces | None:
    """The first row that can be used, None when there is none."""
    rows = (row for source in sources for row in read_rows(source))
    return next((row for row in rows if not isinstance(row, BadRow)), None)


def first_form(sources: Iterable[DataSource]) -> Form | None:
    """Form of the first row that can be used; None without one, and where rows need no chat template."""
    row = first_row(sources)
    return row.form if isinstance(row, Conversation) else None
