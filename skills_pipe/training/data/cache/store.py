"""The folder of tokenised data sets: an entry is found by what it was made from, or made by one process for all."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from skills_pipe.artifacts.atomic import publish_directory, write_json
from skills_pipe.errors import DataError
from skills_pipe.training.checkpoint.owner import Owner
from skills_pipe.training.data.cache.files import open_documents
from skills_pipe.training.data.cache.lock import Lock
from skills_pipe.training.data.dataset import SftDataset

_POLL_SECONDS: Final = 0.2
_STARTED: Final = time.time()

Make = Callable[[Path], None]
"""Writes a data set into an empty folder."""


class Store:
    """Tokenised data sets below one folder, which may be deleted at any time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str, make: Make, *, again: bool = False) -> SftDataset:
        """The data set of ``key``; made by ``make`` where there is none, by one process while the others wait.

        Args:
            key: says all that the data set follows from, as hexadecimal digits.
            make: called in at most one of the processes that ask at the same time.
            again: make it although there is one from before this process started.

        Raises:
            DataError: ``make`` refused the data, here or in the process that this one waited for; or the folder
                cannot be written.
        """
        try:
            return self._get(key, make, again=again)
        except OSError as error:
            raise DataError(
                f"the tokenised data cannot be kept in {self._folder}: {error.strerror or error}",
                where="data.cache_dir",
                fix="choose a folder that can be written and has room",
            ) from error

    def path(self, key: str) -> Path:
        """Folder of an entry, made or not."""
        return self._folder / key[:2] / key

    def _get(self, key: str, make: Make, *, again: bool) -> SftDataset:
        path = self.path(key)
        if (found := _open(path, again=again)) is not None:
            return found
        lock = Lock(path.with_name(f"{path.name}.lock"))
        waited_for: Owner | None = None
        while True:
            with lock.try_hold() as mine:
                if mine:
                    # Whoever held it before may have finished since the last look.
                    if (found := _open(path, again=again) or self._make(path, make, lock)) is not None:
                        return found
                    continue
            waited_for = lock.owner() or waited_for
            time.sleep(_POLL_SECONDS)
            if (found := _open(path, again=again)) is not None:
                return found
            _raise_refusal(_refusal(path), waited_for)

    def _make(self, path: Path, make: Make, lock: Lock) -> SftDataset | None:
        """Make an entry; None where the lock was taken from us meanwhile, by somebody who held us for dead."""
        _refusal(path).unlink(missing_ok=True)
        for left_over in path.parent.glob(f".tmp-{path.name}.*"):
            # Of a process that was killed: nobody else writes while we hold the lock.
            shutil.rmtree(left_over, ignore_errors=True)
        try:
            with publish_directory(path) as folder:
                make(folder)
        except DataError as error:
            # Those who wait for us would read all rows only to find the same.
            told = {"what": error.what, "where": error.where, "fix": error.fix}
            write_json(_refusal(path), {"by": vars(Owner.current()), **told})
            raise
        except OSError:
            if lock.is_held():
                raise
            return None
        return open_documents(path)


def _refusal(path: Path) -> Path:
    return path.with_name(f"{path.name}.refused.json")


def _open(path: Path, *, again: bool) -> SftDataset | None:
    """The entry at ``path``; where it is to be made again, only one that was made since this process started.

    So of all ranks that start together one makes it again, and not each of them.
    """
    if again and (not path.is_dir() or path.stat().st_mtime < _STARTED):
        return None
    return open_documents(path)


def _raise_refusal(refused: Path, waited_for: Owner | None) -> None:
    try:
        value: dict[str, Any] = json.loads(refused.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if waited_for is not None and value.get("by") == vars(waited_for):
        raise DataError(value["what"], where=value["where"], fix=value["fix"])
