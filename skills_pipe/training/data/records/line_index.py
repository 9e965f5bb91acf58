"""Where the lines of a large file begin: found once, kept in the user's cache, memory-mapped."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from skills_pipe.artifacts.atomic import publish_file

ENV_CACHE: Final = "SKILLS_PIPE_CACHE"
"""Folder for what can be made again; without it ``$XDG_CACHE_HOME/skills_pipe`` or ``~/.cache/skills_pipe``."""

_CHUNK: Final = 16 << 20
_COPIED: Final = 1 << 20
_NEWLINE: Final = 10
_SPACE: Final = 32
_WORTH_KEEPING: Final = 64 << 20
"""Bytes from which on an index is kept on disk: a smaller file is searched sooner than its index is found."""


@dataclass(frozen=True)
class LineIndex:
    """Offsets of the lines that are not blank.

    Attributes:
        starts: int64 [rows], first byte of each row's line.
        numbers: int64 [rows], line number of each row, from 1; None when no line is blank, so row r is line r + 1.
    """

    starts: NDArray[np.int64]
    numbers: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.starts)

    def line(self, row: int) -> int:
        """Line number of a row."""
        return row + 1 if self.numbers is None else int(self.numbers[row])


def line_index(path: Path) -> LineIndex:
    """The index of a file: from the cache where the file has not changed since, else made by reading it once."""
    state = path.stat()
    if state.st_size < _WORTH_KEEPING:
        return _split(np.concatenate([np.zeros((0, 2), np.int64), *_rows(path)]))
    identity = f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ino}"
    kept = cache_folder() / "line-index" / f"{hashlib.sha256(identity.encode()).hexdigest()}.npy"
    if not kept.is_file():
        try:
            with publish_file(kept) as temporary:
                _write(path, temporary)
        except OSError:
            # A cache that cannot be written, on a full or read-only disk, is no reason not to train.
            return _unkept(path)
    return _split(np.load(kept, mmap_mode="r"))


def cache_folder() -> Path:
    """Where indexes and the like are kept; it may be deleted at any time."""
    base = os.environ.get(ENV_CACHE)
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "skills_pipe"


def _split(table: NDArray[np.int64]) -> LineIndex:
    """An index from its rows of (start, line number); starts alone when no line is blank."""
    if table.ndim == 1:
        return LineIndex(table, None)
    return LineIndex(table[:, 0], table[:, 1])


def _write(path: Path, target: Path) -> None:
    """Write the index of ``path`` as an array file of flat starts, or of (start, line number) where lines are blank."""
    with tempfile.TemporaryFile() as spool:
        rows, last_line = 0, 0
        for part in _rows(path):
            part.tofile(spool)
            rows, last_line = rows + len(part), int(part[-1, 1]) if len(part) else last_line
        spool.flush()
        table = np.memmap(spool, dtype=np.int64, mode="r", shape=(rows, 2)) if rows else np.zeros((0, 2), np.int64)
        flat = last_line == rows
        out = np.lib.format.open_memmap(target, mode="w+", dtype=np.int64, shape=(rows,) if flat else (rows, 2))
        for start in range(0, rows, _COPIED):
            piece = table[start : start + _COPIED]
            out[start : start + len(piece)] = piece[:, 0] if flat else piece
        out.flush()


def _unkept(path: Path) -> LineIndex:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "index.npy"
        _write(path, target)
        # The mapping outlives the name of its file.
        return _split(np.load(target, mmap_mode="r"))


def _rows(path: Path) -> Iterator[NDArray[np.int64]]:
    """Yield (start, line number) of the lines that are not blank, chunk by chunk."""
    lines_before, position, line_start = 0, 0, 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == _NEWLINE).astype(np.int64) + position
            starts = np.concatenate([np.array([line_start], np.int64), ends[:-1] + 1])[: len(ends)]
            yield _without_blank(file.fileno(), starts, ends, lines_before, (chunk, position))
            if len(ends):
                lines_before, line_start = lines_before + len(ends), int(ends[-1]) + 1
            position += len(chunk)
    if line_start < position:
        last = (np.array([line_start], np.int64), np.array([position], np.int64))
        with open(path, "rb") as file:
            yield _without_blank(file.fileno(), *last, lines_before, (b"", position))


def _without_blank(
    descriptor: int, starts: NDArray[np.int64], ends: NDArray[np.int64], lines_before: int, held: tuple[bytes, int]
) -> NDArray[np.int64]:
    """(start, line number) of those lines that hold more than white space; only lines that begin with it are read."""
    chunk, position = held
    keep = np.ones(len(starts), dtype=bool)
    inside = starts >= position
    first = np.zeros(len(starts), np.uint8)
    first[inside] = np.frombuffer(chunk + b"\n", np.uint8)[starts[inside] - position] if len(chunk) else 0
    for at in np.flatnonzero(first <= _SPACE):
        keep[at] = bool(os.pread(descriptor, int(ends[at] - starts[at]), int(starts[at])).strip())
    return np.stack([starts[keep], lines_before + 1 + np.flatnonzero(keep)], axis=1)
