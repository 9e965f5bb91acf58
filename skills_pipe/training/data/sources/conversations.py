"""Rows of messages, and rows of an input and an output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from skills_pipe.artifacts.rows import RowKeys, UnfitRow, row_form
from skills_pipe.training.data.rows import BadRow, Conversation, Row


@dataclass(frozen=True, kw_only=True)
class Conversations(RowKeys):
    """Rows as NeMo RL's ResponseDataset and openai_format have them; messages count where a row has both.

    Attributes:
        system_key: system prompt of the row, None when rows have none.
        system_prompt: system prompt of rows without one of their own.
        prompt: text with a ``{}`` that the first user message of each row is put into.
    """

    system_key: str | None = None
    system_prompt: str | None = None
    prompt: str | None = None

    def rows(self, value: Any, where: str) -> Iterator[Row]:
        """The conversation of a row: a system prompt is put in front unless it begins with one."""
        try:
            form = row_form(value, self)
        except UnfitRow as problem:
            yield BadRow(where=where, what=str(problem))
            return
        messages = value[self.chat_key] if form != "pair" else self._pair(value)
        what = self._unfit_for_prompt(messages)
        if what:
            yield BadRow(where=where, what=what)
            return
        tools = value.get(self.tool_key) if self.tool_key else None
        messages = self._with_system(self._with_prompt(messages), value)
        yield Conversation(messages=messages, tools=tools, form=form, where=where)

    def _pair(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {"role": "user", "content": row[self.input_key]},
            {"role": "assistant", "content": row[self.output_key]},
        ]

    def _unfit_for_prompt(self, messages: list[dict[str, Any]]) -> str | None:
        """Only text can be put into the prompt."""
        first = next((message for message in messages if message["role"] == "user"), None)
        if self.prompt is None or first is None or isinstance(first.get("content"), str):
            return None
        kind = type(first.get("content")).__name__
        return f"the content of its first user message is {kind}, not text for the prompt"

    def _with_prompt(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Messages with the first one of the user put into the prompt."""
        first = next((at for at, message in enumerate(messages) if message["role"] == "user"), None)
        if self.prompt is None or first is None:
            return messages
        asked = {**messages[first], "content": self.prompt.format(messages[first].get("content"))}
        return [*messages[:first], asked, *messages[first + 1 :]]

    def _with_system(self, messages: list[dict[str, Any]], row: Mapping[str, Any]) -> list[dict[str, Any]]:
        prompt = row.get(self.system_key) if self.system_key else None
        prompt = prompt or self.system_prompt
        if not prompt or messages[0]["role"] == "system":
            return messages
        return [{"role": "system", "content": prompt}, *messages]
