"""Rows of a file or of a program, one by one, as the trainer reads them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from skills_pipe.errors import DataError
from skills_pipe.training.data.records.opening import open_records
from skills_pipe.training.data.rows import BadRow
from skills_pipe.training.data.sources.alpaca import Alpaca
from skills_pipe.training.data.sources.conversations import Conversations
from skills_pipe.training.data.sources.source import RowFormat

DatasetName = Literal["alpaca", "ResponseDataset"]


class SFTDataset:
    """Rows of instruction, input (may be absent) and output; or of input and output, or of messages.

    Iterating gives the rows as they are, so ``model(row).loss`` is the loss of one of them.

    Args:
        rows: a file of rows (``.json``, ``.jsonl``, ``.csv``, ``.parquet``, ...), or the rows themselves, which are
            then written to a temporary file that is gone when the data set is.

    Raises:
        DataError: there is no such file, or it has no rows.
    """

    def __init__(self, rows: str | Path | Sequence[Mapping[str, Any]]) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if isinstance(rows, (str, Path)):
            self.path = Path(rows)
        else:
            self._folder = tempfile.TemporaryDirectory(prefix="rows-")
            self.path = Path(self._folder.name) / "rows.jsonl"
            with open(self.path, "w", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        self._records = open_records(self.path)
        if len(self) == 0:
            raise DataError("the data set has no rows", where=str(self.path))
        self.name = dataset_name(self[0])

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for where, row in self._records.read():
            yield _good(where, row)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        start = index % len(self)
        ((where, row),) = self._records.read(start, start + 1)
        return _good(where, row)


def dataset_name(row: Mapping[str, Any]) -> DatasetName:
    """By which name of a data set a row is read."""
    return "alpaca" if "instruction" in row else "ResponseDataset"


def row_format(row: Mapping[str, Any]) -> RowFormat:
    """How a row is read."""
    return Alpaca() if dataset_name(row) == "alpaca" else Conversations()


def _good(where: str, row: Any) -> dict[str, Any]:
    if isinstance(row, BadRow):
        raise DataError(row.what, where=row.where)
    if not isinstance(row, Mapping):
        raise DataError("not a JSON object", where=where)
    return dict(row)
