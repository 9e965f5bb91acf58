"""How programs run on the login node of a cluster."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

TIMEOUT_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a program ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.code == 0


NOT_FOUND = Answer(code=127, out="", err="not found")
"""The answer of a program that is not there."""


class Transport(Protocol):
    """Runs programs where the scheduler of a cluster can be reached."""

    def run(self, argv: Sequence[str], *, stdin: str = "") -> Answer:
        """Run a program and wait for its end; one that is not there answers as a shell would, with 127."""


@dataclass(frozen=True)
class Here:
    """This machine."""

    def run(self, argv: Sequence[str], *, stdin: str = "") -> Answer:
        """Run a program as a process of this machine."""
        if shutil.which(argv[0]) is None:
            return NOT_FOUND
        ended = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS)
        return Answer(code=ended.returncode, out=ended.stdout, err=ended.stderr)
