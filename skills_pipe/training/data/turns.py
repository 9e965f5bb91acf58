"""Where in a conversation's text the assistant's turns stand, found by what the template puts before an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from skills_pipe.errors import DataError
from skills_pipe.training.data.document import MaskRules
from skills_pipe.training.data.rows import Conversation
from skills_pipe.training.data.template import Template

_MARK: Final = "\ue000\ue001\ue000"
"""Stands for a content; of private characters, which no template changes and no data has."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """An assistant turn in the text that ends with it.

    Attributes:
        told: the text of the conversation up to and with the turn.
        start: where in it begins what the assistant wrote.
        end: where that ends: after its stop token, or with the text when it has none.
        weight: of its loss; 0: it is not trained.
    """

    told: str
    start: int
    end: int
    weight: float

    @property
    def seen(self) -> str:
        """The text up to and with what the assistant wrote."""
        return self.told[: self.end]


def find_turns(
    conversation: Conversation, weights: Sequence[float], template: Template, rules: MaskRules
) -> list[Turn]:
    """The assistant's turns of a conversation, each in the text that the model saw and wrote.

    Raises:
        DataError: an answer does not follow in the text from what stands before it.
    """
    messages, tools = conversation.messages, conversation.tools
    turns = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        told = template.render(messages[: index + 1], tools)
        seen = _seen(conversation, index, template)
        if not told.startswith(seen):
            told = _as_written(conversation, index, (seen, told), template)
        start = len(seen)
        turns.append(Turn(told=told, start=start, end=_end(told, start, rules), weight=weights[index]))
    return turns


def _seen(conversation: Conversation, index: int, template: Template) -> str:
    """What the model sees before it writes an assistant message."""
    messages, tools = conversation.messages, conversation.tools
    asked = template.has_generation_prompt and index > 0
    seen = template.render(messages[:index], tools, prompt=asked) if index else ""
    return seen if asked else seen + _header(conversation, index, seen, template)


def _as_written(conversation: Conversation, index: int, texts: tuple[str, str], template: Template) -> str:
    """The text that ends with a message of which the template leaves out the beginning: with all of the message.

    So do the templates of DeepSeek R1: they ask by ``<think>``, and take the reasoning out of every answer. The model
    writes it nevertheless.

    Args:
        conversation, index: say the message.
        texts: what the model sees before it, and the text that the template makes with it.
        template: the template.

    Raises:
        DataError: the message does not begin as the model is asked to, or the template does something else with it.
    """
    seen, told = texts
    message = conversation.messages[index]
    content = message.get("content")
    marked = template.render([*conversation.messages[:index], {**message, "content": _MARK}], conversation.tools)
    header, mark, tail = marked.partition(_MARK)
    follows = f"message {index + 1} does not follow in the chat template's text from what the model sees before it"
    if mark and isinstance(content, str) and seen.startswith(header):
        kept = told.removeprefix(header).removesuffix(tail)
        written = header + content + tail
        if kept != content and content.endswith(kept) and told == header + kept + tail and written.startswith(seen):
            return written
        if seen != header:
            follows += f", which ends in {seen.removeprefix(header)!r}"
    raise DataError(
        follows,
        fix="begin the message so, mark the answers in the template by {% generation %}, or use another template",
    )


def _header(conversation: Conversation, index: int, seen: str, template: Template) -> str:
    """What stands between ``seen`` and the content of an assistant message, for want of a generation prompt.

    Found by putting a mark in place of the content. Blanks alone are no header: the assistant writes them.
    """
    marked = [*conversation.messages[:index], {**conversation.messages[index], "content": _MARK}]
    header, mark, _ = template.render(marked, conversation.tools).removeprefix(seen).partition(_MARK)
    if header.strip() and not mark:
        raise DataError(
            f"the chat template has no generation prompt and leaves out the content of message {index + 1}",
            fix="mark the answers in the template by {% generation %}, or use another template",
        )
    return header if header.strip() else ""


def _end(told: str, start: int, rules: MaskRules) -> int:
    """End of the stop token that ends the turn; of the text when blanks at most follow something else."""
    end = len(told.rstrip())
    return end if end > start and rules.ends_turn(told[start:end]) else len(told)
