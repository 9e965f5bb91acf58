"""Answers on disk while an evaluation runs: what was generated survives any kill, and is only used where it fits.

``output.jsonl-async`` takes answers in the order in which they come, each with the number of its row
(``_async_position``). When all are there they are put in order and become ``output.jsonl`` by rename.
``output.jsonl-settings.json`` beside it says what was evaluated: answers of other settings are not mixed in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from skills_pipe.artifacts import atomic
from skills_pipe.artifacts.identity import Identity
from skills_pipe.errors import DataError
from skills_pipe.evaluation.clients.base import CONTEXT_WINDOW_EXCEEDED

POSITION = "_async_position"


class PartialAnswers:
    """The answers of one run.

    Args:
        output: the file that they become, ``output.jsonl``.
        identity: of everything that decides the answers.

    Raises:
        DataError: there are answers of unknown settings; they are not touched.

    Attributes:
        changes: what differs from the settings of the answers that were found (and removed); empty when they fit.
        damaged_lines: lines that could not be read and are generated again.
        finished: whether ``output`` is there already, whole and with these settings.
    """

    def __init__(self, output: Path, identity: Identity) -> None:
        self._output = output
        self._path = output.with_name(output.name + "-async")
        self._identity = identity
        self._lines: dict[int, tuple[int, int]] = {}
        self._file: IO[bytes] | None = None
        self.damaged_lines = 0
        self.changes = self._claim()
        self.finished = output.exists()
        if not self.finished:
            self._scan()

    @property
    def done(self) -> frozenset[int]:
        """Positions whose answers are on disk; those that failed for a passing reason are not among them."""
        return frozenset(self._lines)

    def __enter__(self) -> PartialAnswers:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._path, "ab")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, position: int, row: Mapping[str, Any]) -> None:
        """Hand an answer to the system: it survives a kill of this process from here on."""
        if self._file is None:
            raise RuntimeError("append needs the 'with' block")
        line = json.dumps({POSITION: position, **row}).encode() + b"\n"
        start = self._file.tell()
        self._file.write(line)
        self._file.flush()
        self._lines[position] = (start, len(line))

    def in_order(self) -> Iterator[dict[str, Any]]:
        """The rows by position, without it."""
        with open(self._path, "rb") as file:
            for position in sorted(self._lines):
                start, length = self._lines[position]
                file.seek(start)
                row = json.loads(file.read(length))
                del row[POSITION]
                yield row

    def publish(self, rows: Iterator[Mapping[str, Any]]) -> None:
        """Write the final rows to the output by rename, and drop the partial file."""
        with atomic.publish_file(self._output) as temporary, open(temporary, "w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")
        self._path.unlink(missing_ok=True)
        self.finished = True

    def _claim(self) -> list[str]:
        """Record the settings; answers of other recorded settings are removed first."""
        record = self._output.with_name(self._output.name + "-settings.json")
        found = self._output.exists() or self._path.exists()
        before = _read_identity(record)
        if before is not None and before.digest == self._identity.digest:
            return []
        if before is None and found:
            raise DataError(
                "answers are there, but no record of the settings they were made with",
                where=str(self._output.parent),
                fix="move them away, or choose another folder",
            )
        changes = before.changes(self._identity) if before is not None else []
        self._output.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)
        atomic.write_json(record, self._identity.to_json())
        return changes if found else []

    def _scan(self) -> None:
        """Find the whole lines of an earlier process; a last line that was cut short is cut off."""
        if not self._path.exists():
            return
        start = 0
        with open(self._path, "rb") as file:
            for line in file:
                row = _parse(line)
                if row is None:
                    self.damaged_lines += 1
                elif row.get("error") in (None, CONTEXT_WINDOW_EXCEEDED):
                    self._lines[row[POSITION]] = (start, len(line))
                start += len(line)
            torn = start and not line.endswith(b"\n")
        if torn:
            os.truncate(self._path, start - len(line))


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    whole = line.endswith(b"\n") and isinstance(row, dict) and isinstance(row.get(POSITION), int)
    return row if whole else None


def _read_identity(path: Path) -> Identity | None:
    try:
        return Identity.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
