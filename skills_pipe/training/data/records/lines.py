"""Files of one JSON value per line, plain or compressed."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Final

import orjson

from skills_pipe.errors import DataError
from skills_pipe.training.data.records.base import parsed
from skills_pipe.training.data.records.line_index import LineIndex, line_index

_LONG_NUMBER: Final = b"0" * 19
"""Digits in a row, all written 0: a number that the fast parser may round to a float; Python's own never does."""

_DIGITS_TO_ZERO: Final = bytes.maketrans(b"123456789", b"0" * 9)


class JsonLines:
    """Rows of a ``.jsonl`` file. Reading from its start needs no index; its length and any later start make one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        return len(self._index)

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, Any]]:
        """See :class:`base.Records`."""
        if stop is not None and start >= stop:
            return
        with open(self._path, "rb") as file:
            first_line = 1
            if start:
                if start >= len(self):
                    return
                file.seek(int(self._index.starts[start]))
                first_line = self._index.line(start)
            yield from islice(_rows(file, self._path, first_line), None if stop is None else stop - start)

    @cached_property
    def _index(self) -> LineIndex:
        return line_index(self._path)


class CompressedLines:
    """Rows of a ``.jsonl.gz`` file; a later start is reached by reading what comes before it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        with self._open() as file:
            return sum(1 for line in self._lines(file) if line.strip())

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, Any]]:
        """See :class:`base.Records`."""
        with self._open() as file:
            for where, line in islice(_numbered(self._lines(file), self._path, 1), start, stop):
                yield where, parse_line(line, where)

    def _open(self) -> gzip.GzipFile:
        return gzip.open(self._path, "rb")

    def _lines(self, file: gzip.GzipFile) -> Iterator[bytes]:
        try:
            yield from file
        except (OSError, EOFError) as error:
            raise DataError(f"the file cannot be unpacked: {error}", where=str(self._path)) from error


def parse_line(line: bytes, where: str) -> Any:
    """The value of a line, or a BadRow; the same as by :mod:`json`, sooner."""
    if _LONG_NUMBER not in line.translate(_DIGITS_TO_ZERO):
        try:
            return orjson.loads(line)
        except orjson.JSONDecodeError:
            pass  # Python's parser takes more, such as NaN, and says better what is wrong.
    return parsed(line, where)


def _rows(lines: Iterator[bytes], path: Path, first_line: int) -> Iterator[tuple[str, Any]]:
    for where, line in _numbered(lines, path, first_line):
        yield where, parse_line(line, where)


def _numbered(lines: Iterator[bytes], path: Path, first_line: int) -> Iterator[tuple[str, bytes]]:
    """Yield (where, line) of the lines that are not blank."""
    for number, line in enumerate(lines, start=first_line):
        if not line.isspace():
            yield f"{path}:{number}", line
