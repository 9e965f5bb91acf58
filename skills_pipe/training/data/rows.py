"""What is read from a source: a conversation for the chat template, finished pieces of text, or a fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from skills_pipe.artifacts.rows import Form

CutEnd = Literal["left", "right"]
"""The end of a text that is cut off: its beginning or its end."""


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """The messages of one row as they stand in the file: nothing is added to them, nothing unified.

    Attributes:
        messages: at least one; the last one is the assistant's.
        tools: for the chat template, None without.
        form: what the row consisted of.
        where: file and line, for messages to the user.
    """

    messages: list[dict[str, Any]]
    tools: list[Any] | None
    form: Form
    where: str


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of text that is tokenised by itself and trained as a whole or not at all.

    Attributes:
        text: may be empty.
        trained: whether the model learns to write it.
        weight: factor of its loss, where it is trained.
        cut: the end at which it may be shortened when the document is too long; None: it is kept whole.
    """

    text: str
    trained: bool
    weight: float = 1.0
    cut: CutEnd | None = None


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """A document of a format that says itself what its text is and which of it is trained: no template is applied.

    Attributes:
        segments: in order; at least one.
        where: file and line, for messages to the user.
        stop: text by which the format ends what is trained; None: only the tokenizer's end-of-text token can end it.
    """

    segments: tuple[Segment, ...]
    where: str
    stop: str | None = None


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row that cannot be trained on: where it stands and what is wrong."""

    where: str
    what: str


Row: TypeAlias = Conversation | Pieces | BadRow
