"""What every source of generated texts offers: requests in, answers out as they finish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from skills_pipe.evaluation.prompts.template import Message
from skills_pipe.evaluation.settings import Inference


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt; ``position`` is the number of its row, by which answers find back."""

    position: int
    messages: Sequence[Message]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model made of a request.

    Attributes:
        position: that of the request.
        text: the generated text without special tokens; empty after an error.
        num_generated_tokens: new tokens, the one that ends the answer included.
        finish_reason: ``stop`` (the model ended, or a stop phrase came), ``length``, or ``error``.
        started, ended: Unix times in seconds.
        error: why there is no text: ``context_window_exceeded``, or a short name of the failure.
        detail: the whole message of an error.
    """

    position: int
    text: str
    num_generated_tokens: int
    finish_reason: str
    started: float
    ended: float
    error: str | None = None
    detail: str | None = None


CONTEXT_WINDOW_EXCEEDED = "context_window_exceeded"
"""The one error that another attempt cannot mend."""


class Client(Protocol):
    """Generates texts."""

    def generate(self, requests: Sequence[Request], inference: Inference) -> Iterator[Answer]:
        """Yield one answer per request, in the order in which they finish.

        Two calls with the same requests and ``inference`` give the same answers in process; a server may not keep
        to that.
        """

    def close(self) -> None:
        """Let go of memory and connections."""


def failed(request: Request, *, error: str, detail: str, started: float, ended: float) -> Answer:
    """The answer to a request that cannot be answered."""
    return Answer(
        position=request.position,
        text="",
        num_generated_tokens=0,
        finish_reason="error",
        started=started,
        ended=ended,
        error=error,
        detail=detail,
    )
