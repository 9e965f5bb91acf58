"""What every kind of file of rows can do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from skills_pipe.artifacts.rows import UnfitRow, parse_row
from skills_pipe.training.data.rows import BadRow


class Records(Protocol):
    """The rows of one file, by number; blank lines are no rows.

    Opening one reads nothing, or as little as says how the file is built; rows are read when they are asked for.
    """

    def __len__(self) -> int: ...

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, Any]]:
        """Yield (where, value) of the rows from ``start`` up to ``stop``; the value is a BadRow where it is broken."""
        ...


def parsed(text: bytes, where: str) -> Any:
    """The value of a row of JSON text, or a BadRow."""
    try:
        return parse_row(text)
    except UnfitRow as problem:
        return BadRow(where=where, what=str(problem))


def row_place(path: Path, index: int) -> str:
    """How a row of a file without lines is named to the user."""
    return f"{path}, row {index + 1}"
