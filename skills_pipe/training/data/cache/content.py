"""Hashes of the contents of files, remembered as long as a file has not been touched."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Final

from skills_pipe.artifacts.atomic import write_json
from skills_pipe.errors import DataError

_SETTLED_SECONDS: Final = 3.0
"""A file that was written this short before it was read may change again without another time of change."""


class Contents:
    """sha256 of files. A hash is taken from memory while size, times, inode and path are those it was made at."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def digest(self, path: Path) -> str:
        """Hash of the content of a file.

        Raises:
            DataError: the file cannot be read.
        """
        try:
            state = path.stat()
            place = str(path.resolve())
            marks: list[str | int] = [place, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
            note = self._folder / f"{hashlib.sha256(place.encode()).hexdigest()}.json"
            if (known := _noted(note, marks)) is not None:
                return known
            taken = sha256(path)
        except OSError as error:
            raise DataError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
        if time.time() - max(state.st_mtime, state.st_ctime) > _SETTLED_SECONDS:
            self._write(note, marks, taken)
        return taken

    def _write(self, note: Path, marks: list[str | int], taken: str) -> None:
        try:
            write_json(note, {"marks": marks, "sha256": taken})
        except OSError:
            # It is only taken again the next time.
            return


def sha256(path: Path) -> str:
    """sha256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _noted(note: Path, marks: list[str | int]) -> str | None:
    try:
        value = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value["sha256"] if value.get("marks") == marks else None
