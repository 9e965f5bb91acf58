"""Deleting checkpoints that retention lets go, and trying again where that fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from skills_pipe.artifacts.names import step_directory

_PREFIX, _SUFFIX = ".tmp-", ".retired"


class Retired:
    """The checkpoints of a folder that are to go.

    A folder may refuse: its permissions changed, a disk is mounted in it, a network file system holds on to open
    files. No training ends for that; whoever looks after the disk is told once, and the next call tries again.

    Args:
        folder: of the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told: set[str] = set()

    def delete(self, steps: Iterable[int]) -> list[str]:
        """Delete the checkpoints of ``steps``, and what earlier calls could not; sentences about what stays."""
        # Under a name that is no checkpoint's any more: a deletion cut short leaves no half of a step.
        refused = dict(_set_aside(self._folder / step_directory(step)) for step in steps)
        refused |= {path.name: delete(path) for path in self._folder.glob(f"{_PREFIX}step_*{_SUFFIX}")}
        staying = {name: error for name, error in refused.items() if error is not None}
        new = [
            f"{self._what(name)} cannot be deleted ({error.strerror or error}); this is tried again after each save"
            for name, error in staying.items()
            if name not in self._told
        ]
        self._told = set(staying)
        return new

    def _what(self, name: str) -> str:
        """A folder that stays, and what it was: nobody knows it by the name that it has now."""
        step = name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
        moved = f", moved to {self._folder / name}" if name != step else ""
        return f"{self._folder / step}, which retention lets go{moved},"


def delete(path: Path) -> OSError | None:
    """Delete a folder as far as it can be; the first thing that stood against it, None when it is gone."""
    failures: list[OSError] = []
    shutil.rmtree(path, onerror=lambda function, name, failure: failures.append(failure[1]))
    return failures[0] if path.exists() and failures else None


def _set_aside(path: Path) -> tuple[str, OSError | None]:
    try:
        os.rename(path, path.with_name(f"{_PREFIX}{path.name}{_SUFFIX}"))
    except OSError as error:
        return path.name, error
    return path.name, None
