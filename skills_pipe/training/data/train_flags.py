"""Which messages are trained, and how much, as the rows say it themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from skills_pipe.errors import DataError
from skills_pipe.training.data.rows import Conversation

SWITCHES: Final = ("train", "training", "loss")
"""Keys of a message that say by true or false whether it is trained; other programs use one or the other."""

WEIGHT: Final = "weight"
"""Key of a message with the factor of its loss; OpenAI's format has 0 and 1."""


def message_weights(conversation: Conversation) -> list[float]:
    """For each message the weight of its loss: 1 for those of the assistant unless they say otherwise, else 0.

    Raises:
        DataError: a value is of the wrong kind, two keys contradict each other, or a message that the assistant did not
            write is to be trained.
    """
    return [_weight(message, number) for number, message in enumerate(conversation.messages, start=1)]


def without_flags(conversation: Conversation) -> Conversation:
    """The conversation without such keys: they tell the trainer something, not the model, so no template sees them."""
    messages = conversation.messages
    if not any(_FLAGS & message.keys() for message in messages):
        return conversation
    plain = [{key: value for key, value in message.items() if key not in _FLAGS} for message in messages]
    return replace(conversation, messages=plain)


_FLAGS: Final = frozenset((*SWITCHES, WEIGHT))


def _weight(message: Mapping[str, Any], number: int) -> float:
    by_role = 1.0 if message["role"] == "assistant" else 0.0
    told = {key: message[key] for key in (*SWITCHES, WEIGHT) if message.get(key) is not None}
    if not told:
        return by_role
    weights = {key: _number(key, value, number) for key, value in told.items()}
    if len({weight > 0 for weight in weights.values()}) > 1:
        raise DataError(f"message {number} is and is not to be trained: {_shown(told)}")
    weight = weights.get(WEIGHT, next(iter(weights.values())))
    if weight > 0 and by_role == 0:
        raise DataError(
            f"message {number} ({message['role']}) is to be trained by {_shown(told)}, and only the assistant's can be",
            fix="set data.answer_only_loss=false to train all of the text",
        )
    return weight


def _number(key: str, value: Any, number: int) -> float:
    if key in SWITCHES:
        if isinstance(value, bool):
            return float(value)
        raise DataError(f"{key!r} of message {number} is {value!r}, not true or false")
    if isinstance(value, int | float) and math.isfinite(value) and value >= 0:
        return float(value)
    raise DataError(f"{key!r} of message {number} is {value!r}, not a number from 0 on")


def _shown(told: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value!r}" for key, value in told.items())
