"""How a run was asked for, in its folder: ``command.json``. Secrets are not in it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from skills_pipe import __version__
from skills_pipe.artifacts.atomic import write_json

RECORD = "command.json"


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """A command of ``ns``.

    Attributes:
        words: behind ``ns``; a call from Python as the words that mean the same.
        folder: where it was given.
        version: of this package.
    """

    words: tuple[str, ...]
    folder: str
    version: str

    def __str__(self) -> str:
        return shlex.join(("ns", *self.words))


def write_command_line(words: Sequence[str], run: Path) -> None:
    """Record the command of a run in its folder."""
    write_json(run / RECORD, {"words": list(words), "folder": str(Path.cwd()), "version": __version__})


def read_command_line(run: Path) -> CommandLine | None:
    """The command of a run; None where none was recorded: its plan was made by a Python program."""
    try:
        value = json.loads((run / RECORD).read_text())
    except FileNotFoundError:
        return None
    return CommandLine(words=tuple(value["words"]), folder=value["folder"], version=value["version"])
