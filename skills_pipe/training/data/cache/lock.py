"""One process at a time makes a data set; the others wait for it, on this machine and on others of the file system."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from skills_pipe.training.checkpoint.owner import Owner

_BEAT_SECONDS: Final = 5.0
_SILENT_SECONDS: Final = 60.0
"""An owner on another machine that has not touched its lock for so long is held for dead."""


class Lock:
    """A file that exists while somebody holds it: created exclusively, touched while its owner lives.

    Should two processes hold it after all (clocks that differ by a minute, a lock that was taken over by two at once),
    both make the same data set, and the second rename replaces what the first one made: work is lost, never data.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._owner = Owner.current()

    @contextmanager
    def try_hold(self) -> Iterator[bool]:
        """Hold the lock within the block if it is free or its owner is dead; False says that another one has it."""
        if not self._acquire():
            yield False
            return
        done = threading.Event()
        beating = threading.Thread(target=self._beat, args=(done,), daemon=True)
        beating.start()
        try:
            yield True
        finally:
            done.set()
            beating.join()
            if self.is_held():
                self._path.unlink(missing_ok=True)

    def is_held(self) -> bool:
        """Whether this process still holds it."""
        return self.owner() == self._owner

    def owner(self) -> Owner | None:
        """Who holds the lock; None when nobody does, or its file is being written."""
        try:
            return Owner(**json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _acquire(self) -> bool:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._create() or (self._is_stale() and self._take_away() and self._create())

    def _create(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(self._owner), file)
        return True

    def _is_stale(self) -> bool:
        try:
            silent = time.time() - self._path.stat().st_mtime
        except FileNotFoundError:
            return False
        owner = self.owner()
        if owner is not None and owner.host == self._owner.host:
            return not owner.is_running_here()
        return silent > _SILENT_SECONDS

    def _take_away(self) -> bool:
        """Remove a stale lock; of two that try, one gets it."""
        aside = self._path.with_name(f".stale-{self._path.name}.{self._owner.label}")
        try:
            os.rename(self._path, aside)
        except FileNotFoundError:
            return False
        aside.unlink()
        return True

    def _beat(self, done: threading.Event) -> None:
        while not done.wait(_BEAT_SECONDS):
            try:
                os.utime(self._path)
            except FileNotFoundError:
                return
