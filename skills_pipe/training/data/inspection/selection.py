"""Which rows are looked at: all of them, or stretches spread evenly over files that are too long for that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from skills_pipe.training.data.rows import Row
from skills_pipe.training.data.sources import DataSource, read_rows

_STRETCHES: Final = 20
"""Places of one file that are read: files are often sorted, so its beginning says little about the rest."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Rows ``start`` to ``stop`` of a file."""

    source: DataSource
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Rows to look at.

    Attributes:
        stretches: what is read, in the order of the files.
        total: rows of all files together.
    """

    stretches: tuple[Stretch, ...]
    total: int

    @property
    def chosen(self) -> int:
        """Number of rows that are read."""
        return sum(stretch.stop - stretch.start for stretch in self.stretches)

    @property
    def whole(self) -> bool:
        """Whether all rows are read."""
        return self.chosen == self.total

    @property
    def share(self) -> float:
        """Rows that are read per row."""
        return self.chosen / self.total if self.total else 1.0

    def rows(self) -> Iterator[Row]:
        """The rows, one after the other."""
        for stretch in self.stretches:
            yield from read_rows(stretch.source, stretch.start, stretch.stop)

    def describe(self) -> str:
        """How many rows are read, of how many."""
        if self.whole:
            return f"all {self.total:,} rows"
        places = len(self.stretches)
        return f"{self.chosen:,} of {self.total:,} rows, from {places} places spread over the data"


def select(sources: Sequence[DataSource], most: int) -> Selection:
    """Choose rows of ``sources``.

    Args:
        sources: the files.
        most: rows to read of all files together; 0: all.

    Raises:
        DataError: a file cannot be read.
    """
    sizes = [len(source.open()) for source in sources]
    total = sum(sizes)
    if not most or total <= most:
        whole = [Stretch(source=source, start=0, stop=size) for source, size in zip(sources, sizes, strict=True)]
        return Selection(stretches=tuple(stretch for stretch in whole if stretch.stop), total=total)
    stretches: list[Stretch] = []
    taken = before = 0
    for source, size in zip(sources, sizes, strict=True):
        before += size
        # Rounded over all files together, so that the shares add up.
        share = most * before // total - taken
        taken += share
        stretches += _spread(source, size, share)
    return Selection(stretches=tuple(stretches), total=total)


def _spread(source: DataSource, size: int, share: int) -> Iterator[Stretch]:
    """Stretches of ``share`` rows in all: the first at the beginning of the file, the last at its end."""
    places = min(_STRETCHES, share)
    for place in range(places):
        length = share * (place + 1) // places - share * place // places
        start = (size - length) * place // (places - 1) if places > 1 else 0
        yield Stretch(source=source, start=start, stop=start + length)
