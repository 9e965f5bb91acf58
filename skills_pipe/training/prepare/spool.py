"""Rows set aside in a temporary file, so that they can be grouped and shuffled without filling the memory."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

from skills_pipe.training.prepare.jsonl import Row, decode, encode
from skills_pipe.training.prepare.processor import BATCH_ROWS


class Spool:
    """Append rows, then read them in any order; 8 bytes of memory per row.

    The file has no name, so that nothing is left behind when the process is killed.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Closed with the spool: its life is that of the object, not of a block.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=1 << 20)  # noqa: SIM115
        self._ends = array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, rows: Iterable[Row]) -> None:
        """Set rows aside behind those that are there."""
        end = self._ends[-1]
        for row in rows:
            line = encode(row)
            self._file.write(line)
            end += len(line)
            self._ends.append(end)

    def read(self, order: Iterable[int]) -> Iterator[list[Row]]:
        """The rows with these numbers, in this order, in batches."""
        self._file.flush()
        descriptor, ends = self._file.fileno(), self._ends
        batch: list[Row] = []
        for number in order:
            start = ends[number]
            batch.append(decode(os.pread(descriptor, ends[number + 1] - start, start)))
            if len(batch) == BATCH_ROWS:
                yield batch
                batch = []
        if batch:
            yield batch

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()
