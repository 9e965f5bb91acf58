"""A program of the login node that goes along with a round trip which is made anyway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skills_pipe.pipeline.site.site import parse_program, program
from skills_pipe.pipeline.transport.base import Answer


@dataclass(kw_only=True)
class Along:
    """The program, and its answer once it has been taken there.

    Attributes:
        argv: its words.
        stdin: its input.
        answer: None until somebody has taken it along.
    """

    argv: tuple[str, ...]
    stdin: str = ""
    answer: Answer | None = field(default=None, init=False)

    def action(self) -> dict[str, Any]:
        """What the agent is to do."""
        return program(self.argv, self.stdin)

    def take(self, told: Mapping[str, Any]) -> None:
        """Keep what the agent has told."""
        self.answer = parse_program(told)
