"""Parquet, Arrow and CSV files."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from skills_pipe.errors import DataError
from skills_pipe.training.data.records.base import row_place
from skills_pipe.training.data.rows import BadRow

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH: Final = 1024


class ArrowTable:
    """Rows of a ``.parquet`` or ``.arrow`` file, a batch at a time.

    A table has every key in every object, null where the row lacked it. With ``preserving`` null keys of nested objects
    are left out again: a tool call keeps the arguments that it was made with.
    """

    def __init__(self, path: Path, *, preserving: bool = True) -> None:
        self._path = path
        self._parquet = path.suffix.lower() == ".parquet"
        self._preserving = preserving

    def __len__(self) -> int:
        with self._told():
            if self._parquet:
                import pyarrow.parquet as pq

                return int(pq.ParquetFile(self._path).metadata.num_rows)
            return sum(batch.num_rows for batch in self._batches(0))

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, Any]]:
        """See :class:`base.Records`."""
        with self._told():
            at = 0
            for batch in self._batches(start):
                if stop is not None and at >= stop:
                    return
                first, last = max(start - at, 0), batch.num_rows if stop is None else min(stop - at, batch.num_rows)
                for offset in range(first, last, _BATCH):
                    part = batch.slice(offset, min(_BATCH, last - offset)).to_pylist()
                    for index, row in enumerate(part, start=at + offset):
                        yield row_place(self._path, index), _row(row) if self._preserving else row
                at += batch.num_rows

    def _batches(self, start: int) -> Iterator[pa.RecordBatch]:
        """All batches in order; those of Parquet row groups that end before ``start`` without their data."""
        import pyarrow as pa

        if self._parquet:
            yield from _parquet_batches(self._path, start)
            return
        with pa.memory_map(str(self._path)) as source:
            try:
                file = pa.ipc.open_file(source)
            except pa.ArrowInvalid:
                source.seek(0)
                yield from pa.ipc.open_stream(source)
                return
            for number in range(file.num_record_batches):
                yield file.get_batch(number)

    def _told(self) -> _ArrowErrors:
        return _ArrowErrors(self._path)


class DelimitedText:
    """Rows of a ``.csv`` or ``.tsv`` file with a line of names; every value is text."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._delimiter = "\t" if path.suffix.lower() == ".tsv" else ","

    def __len__(self) -> int:
        return sum(1 for _ in self.read())

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, Any]]:
        """See :class:`base.Records`."""
        with self._open() as file:
            yield from islice(self._rows(file), start, stop)

    def _rows(self, file: TextIO) -> Iterator[tuple[str, Any]]:
        csv.field_size_limit(1 << 30)
        reader = csv.reader(file, delimiter=self._delimiter, strict=True)
        line = 1
        try:
            names = next(reader, [])
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise DataError(f"two columns are called {twice[0]!r}", where=f"{self._path}:1", fix="rename one")
            line = reader.line_num + 1
            for values in reader:
                # Where the row begins; texts in quotes may go over several lines.
                where, line = f"{self._path}:{line}", reader.line_num + 1
                if len(values) == len(names):
                    yield where, dict(zip(names, values, strict=True))
                elif values:
                    yield where, BadRow(where=where, what=f"{len(values)} values for {len(names)} columns")
        except (csv.Error, UnicodeDecodeError) as error:
            where = f"{self._path}:{line}"
            raise DataError(f"the file cannot be read as a table: {error}", where=where) from error

    def _open(self) -> TextIO:
        if self._path.suffix.lower() == ".gz":
            return cast(TextIO, gzip.open(self._path, "rt", encoding="utf-8-sig", newline=""))
        return open(self._path, encoding="utf-8-sig", newline="")


class PlainText:
    """Lines of a ``.txt`` file, each one a row ``{"text": line}``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        return sum(1 for _ in self.read())

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, Any]]:
        """See :class:`base.Records`."""
        with open(self._path, "rb") as file:
            yield from islice(self._rows(file), start, stop)

    def _rows(self, file: Iterator[bytes]) -> Iterator[tuple[str, Any]]:
        for number, line in enumerate(file, start=1):
            where = f"{self._path}:{number}"
            if line.isspace():
                continue
            try:
                yield where, {"text": line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")}
            except UnicodeDecodeError as error:
                yield where, BadRow(where=where, what=f"not UTF-8 (byte {error.start})")


class _ArrowErrors:
    """Tells what Arrow finds wrong with a file as a mistake of the user's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None or error is None:
            return
        import pyarrow as pa

        if isinstance(error, pa.ArrowException):
            raise DataError(f"the file cannot be read as a table: {error}", where=str(self._path)) from error


def _parquet_batches(path: Path, start: int) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    at, groups = 0, file.metadata.num_row_groups
    for group in range(groups):
        rows = file.metadata.row_group(group).num_rows
        if at + rows <= start:
            # Nobody looks into it: a batch of that many rows and no columns.
            yield pa.RecordBatch.from_struct_array(pa.nulls(rows, pa.struct([])))
        else:
            yield from file.iter_batches(_BATCH, row_groups=[group])
        at += rows


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {key: _without_null_keys(value) for key, value in row.items()}


def _without_null_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null_keys(part) for key, part in value.items() if part is not None}
    return [_without_null_keys(part) for part in value] if isinstance(value, list) else value
