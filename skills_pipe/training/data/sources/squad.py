"""Rows of a context, a question and its answers, as SQuAD has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from skills_pipe.training.data.rows import BadRow, Row
from skills_pipe.training.data.sources.conversations import Conversations


@dataclass(frozen=True, kw_only=True)
class Squad:
    """The context is the system prompt, the question the user's, the first answer the assistant's.

    Attributes:
        conversations: prompt of the questions.
    """

    conversations: Conversations = field(default_factory=Conversations)

    def rows(self, value: Any, where: str) -> Iterator[Row]:
        """The conversation of a row."""
        try:
            context, question, answers = value["context"], value["question"], value["answers"]["text"]
            # Of a text this would be its first letter.
            answer = answers if isinstance(answers, str) else answers[0]
        except (KeyError, TypeError, IndexError):
            has = f"its keys are {', '.join(map(repr, value))}" if isinstance(value, Mapping) else "not a JSON object"
            yield BadRow(where=where, what=f"not a context, a question and at least one answer; {has}")
            return
        messages = [
            {"role": "system", "content": context},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        yield from self.conversations.rows({"messages": messages}, where)
