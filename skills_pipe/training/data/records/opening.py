"""Which kind of file a path is, by its name."""

from __future__ import annotations

import gzip
from pathlib import Path

from skills_pipe.artifacts.rows import starts_array
from skills_pipe.errors import DataError
from skills_pipe.training.config.dataset_names import SUFFIXES, is_data_file
from skills_pipe.training.data.records.base import Records
from skills_pipe.training.data.records.lines import CompressedLines, JsonLines
from skills_pipe.training.data.records.tables import ArrowTable, DelimitedText, PlainText
from skills_pipe.training.data.records.whole import JsonArray, UnifiedRecords


def open_records(path: Path, *, preserving: bool = True) -> Records:
    """The rows of a file.

    Args:
        path: what its name ends in says how it is read; ``.json`` may be one array, or one object per line.
        preserving: keep each row as it is; False: give nested objects the same keys in all rows, as Arrow does.

    Raises:
        DataError: there is no such file, or it is of no known kind.
    """
    name = path.name.lower()
    if not is_data_file(name):
        raise DataError(
            f"cannot read {path.name!r} as training data", where=str(path), fix=f"give one of {', '.join(SUFFIXES[:7])}"
        )
    if not path.is_file():
        raise DataError("there is no such data file", where=str(path), fix="correct the path")
    if name.endswith((".parquet", ".arrow")):
        return ArrowTable(path, preserving=preserving)
    if name.endswith((".csv", ".csv.gz", ".tsv")):
        return DelimitedText(path)
    if name.endswith(".txt"):
        return PlainText(path)
    records = _json(path)
    return records if preserving else UnifiedRecords(records, path)


def _json(path: Path) -> Records:
    packed = path.suffix.lower() == ".gz"
    if ".json" in (suffix.lower() for suffix in path.suffixes) and _starts_array(path, packed=packed):
        return JsonArray(path)
    return CompressedLines(path) if packed else JsonLines(path)


def _starts_array(path: Path, *, packed: bool) -> bool:
    try:
        with gzip.open(path, "rb") if packed else open(path, "rb") as file:
            return starts_array(file.read(64))
    except (OSError, EOFError) as error:
        raise DataError(f"the file cannot be read: {error}", where=str(path)) from error
