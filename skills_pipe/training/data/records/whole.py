"""Files that are one value as a whole: JSON arrays, and rows whose keys are made equal on request."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from skills_pipe.errors import DataError
from skills_pipe.training.data.records.base import Records, parsed, row_place
from skills_pipe.training.data.rows import BadRow


class JsonArray:
    """Rows of a ``.json`` file that holds one array; all of it is held in memory while it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, Any]]:
        """See :class:`base.Records`."""
        for index, row in enumerate(self._rows[start:stop], start=start):
            yield row_place(self._path, index), row

    @cached_property
    def _rows(self) -> list[Any]:
        text = self._path.read_bytes()
        rows = parsed(gzip.decompress(text) if self._path.suffix.lower() == ".gz" else text, str(self._path))
        if isinstance(rows, BadRow):
            raise DataError(f"the file is {rows.what}", where=str(self._path))
        return list(rows)


class UnifiedRecords:
    """Rows of a file with the keys of nested objects made equal, as an Arrow table makes them: absent ones are None."""

    def __init__(self, records: Records, path: Path) -> None:
        self._records = records
        self._path = path

    def __len__(self) -> int:
        return len(self._records)

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, Any]]:
        """See :class:`base.Records`."""
        yield from self._rows[start:stop]

    @cached_property
    def _rows(self) -> list[tuple[str, Any]]:
        import pyarrow as pa

        rows = list(self._records.read())
        objects = [value for _, value in rows if isinstance(value, Mapping)]
        try:
            unified = iter(pa.array(objects).to_pylist())
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"the rows do not fit into one table: {error}",
                where=str(self._path),
                fix="set data.use_preserving_dataset=true, which keeps each row as it is",
            ) from error
        return [(where, next(unified) if isinstance(value, Mapping) else value) for where, value in rows]
