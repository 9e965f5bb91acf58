"""Answers without a word: they are good rows, and teach the model to say nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from skills_pipe.training.data.rows import Conversation, Pieces, Row

_NOT_SAID: Final = ("role", "name", "train", "training", "loss", "weight")


def has_empty_answer(row: Row) -> bool:
    """Whether an answer of the row is empty or blank, with no tool call or reasoning in its place."""
    match row:
        case Conversation():
            return any(message.get("role") == "assistant" and _says_nothing(message) for message in row.messages)
        case Pieces():
            trained = [segment.text for segment in row.segments if segment.trained]
            return bool(trained) and not any(map(str.strip, trained))
        case _:
            return False


def _says_nothing(message: Mapping[str, Any]) -> bool:
    said = [value for key, value in message.items() if key not in _NOT_SAID]
    return not any(value.strip() if isinstance(value, str) else value for value in said)
