"""The verdict of a training job: the one word by which the next job of the chain knows what to do.

Exit codes cannot carry it: torchrun maps every failure to 1 and srun reports whichever rank died first. So rank 0
writes this file by rename after all ranks have finished, and whoever started the job reads it. No file: a crash.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from skills_pipe.artifacts.atomic import write_json


class Outcome(str, Enum):
    """How a training job ended."""

    COMPLETE = "complete"
    """All steps are done; later jobs of the chain have nothing to do."""
    CONTINUE = "continue"
    """Saved before its time ran out; the next job goes on from there."""
    FAILED = "failed"
    """It cannot go on; ``reason`` says why. Trying again would fail again."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a training job ended, after which step, and why."""

    outcome: Outcome
    step: int
    reason: str

    def write(self, path: Path) -> None:
        """Put the verdict at ``path`` by rename."""
        write_json(path, asdict(self) | {"outcome": self.outcome.value})

    @classmethod
    def read(cls, path: Path) -> Verdict | None:
        """The verdict at ``path``; None when there is none or it cannot be read: the job crashed."""
        try:
            value = json.loads(path.read_text())
            return cls(outcome=Outcome(value["outcome"]), step=int(value["step"]), reason=value["reason"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
