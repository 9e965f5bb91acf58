"""Trees of messages: one conversation for each way from the first question to a last reply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from skills_pipe.training.data.rows import BadRow, Row
from skills_pipe.training.data.sources.conversations import Conversations

SYSTEM: Final = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.\n\n"
)
TREES: Final = "*_all.trees.jsonl.gz"
"""The file of its repository that is meant; the others hold the same, message by message."""

_ROLES: Final = {"prompter": "user", "assistant": "assistant"}


@dataclass(frozen=True, kw_only=True)
class OpenAssistant:
    """Rows of ``{"prompt": {"role", "text", "replies": [...]}}``, walked depth first.

    A way that ends with a question is trained up to the reply before it; one with no reply at all is left out.

    Attributes:
        conversations: system prompt and prompt of the conversations.
    """

    conversations: Conversations = field(default_factory=lambda: Conversations(system_prompt=SYSTEM))

    def rows(self, value: Any, where: str) -> Iterator[Row]:
        """The conversations of a tree."""
        if not isinstance(value, Mapping) or not isinstance(value.get("prompt"), Mapping):
            yield BadRow(where=where, what="no tree of messages: it has no 'prompt'")
            return
        seen = set()
        for number, path in enumerate(_paths(value["prompt"]), start=1):
            while path and path[-1].get("role") != "assistant":
                path.pop()
            told = tuple((message.get("role"), message.get("text")) for message in path)
            if not path or told in seen:
                continue
            seen.add(told)
            messages = [{"role": _ROLES.get(str(role), role), "content": text} for role, text in told]
            yield from self.conversations.rows({"messages": messages}, f"{where}, path {number}")


def _paths(root: Mapping[str, Any]) -> Iterator[list[Mapping[str, Any]]]:
    """The messages from the root to each leaf, in the order of the replies."""
    waiting: list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]] = [(root, [])]
    while waiting:
        message, before = waiting.pop()
        path = [*before, message]
        replies = message.get("replies") or []
        if not replies:
            yield path
        waiting.extend((reply, path) for reply in reversed(replies))
