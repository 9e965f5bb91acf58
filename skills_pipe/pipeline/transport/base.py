"""What every transport does: run a program on the login node of a cluster, and give its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

TIMEOUT_SECONDS = 600
"""How long a program may take. A busy controller needs seconds for each job of a submission, and a large folder is gone
through file by file; that nobody is there is told earlier, by ssh and by Slurm's programs themselves."""


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

    def run(self, argv: Sequence[str], *, stdin: str | bytes = "") -> Answer:
        """Run a program and wait for its end; one that is not there answers as a shell would, with 127."""
