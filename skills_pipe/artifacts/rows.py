"""What a row of training data has to be, for the trainer, and for the launcher, which looks at the first ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from skills_pipe.errors import did_you_mean

Form = Literal["pair", "chat", "both"]
"""What a row consists of: an input and an output, messages, or both (then its messages are used)."""

KINDS: Final[Mapping[Form, str]] = {
    "pair": "input and output",
    "chat": "messages",
    "both": "messages, input and output",
}
"""What rows of a form consist of, for people."""

_ROLES = ("system", "user", "assistant", "tool")

_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("problem", "generation"),
    ("problem", "solution"),
    ("problem", "generated_solution"),
    ("instruction", "response"),
    ("prompt", "chosen"),
)
"""Other names that questions and answers often have."""


@dataclass(frozen=True, kw_only=True)
class RowKeys:
    """The keys by which rows are read.

    Attributes:
        input_key: prompt of a row without messages.
        output_key: answer of a row without messages.
        chat_key: list of ``{"role", "content", ...}`` messages.
        tool_key: list of tools for the chat template.
    """

    input_key: str = "input"
    output_key: str = "output"
    chat_key: str = "messages"
    tool_key: str | None = "tools"


class UnfitRow(ValueError):
    """A row that cannot be trained on; the message says why."""


def parse_row(text: bytes) -> Any:
    """The value of one line.

    Raises:
        UnfitRow: it is no JSON, or more than a program can hold.
    """
    try:
        return json.loads(text.decode("utf-8-sig").rstrip())
    except UnicodeDecodeError as error:
        raise UnfitRow(f"not UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise UnfitRow(f"not JSON ({error.msg} at {line}column {error.colno})") from error
    except RecursionError as error:
        raise UnfitRow("JSON that is nested too deeply") from error
    except ValueError as error:
        raise UnfitRow(f"JSON with a number of too many digits ({error})") from error


def starts_array(start: bytes) -> bool:
    """Whether a file that begins so is one array of rows, and not one row per line."""
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def row_form(row: Any, keys: RowKeys) -> Form:
    """What a row consists of.

    Raises:
        UnfitRow: it has neither an input with an output nor messages, or they are not what they have to be.
    """
    if not isinstance(row, Mapping):
        raise UnfitRow("not a JSON object")
    pair = keys.input_key in row and keys.output_key in row
    if not pair and keys.chat_key not in row:
        raise UnfitRow(_missing_keys(row, keys))
    form: Form = "pair" if keys.chat_key not in row else "both" if pair else "chat"
    fault = _pair_fault(row, keys) if form == "pair" else _messages_fault(row[keys.chat_key])
    if fault is None and keys.tool_key and not isinstance(row.get(keys.tool_key), (list, type(None))):
        fault = f"{keys.tool_key!r} is not a list"
    if fault:
        raise UnfitRow(fault)
    return form


def _missing_keys(row: Mapping[str, Any], keys: RowKeys) -> str:
    wanted = f"neither {keys.chat_key!r} nor {keys.input_key!r} with {keys.output_key!r}"
    missing = [key for key in (keys.input_key, keys.output_key) if key not in row]
    near = [hint for key in (keys.chat_key, *missing) if (hint := did_you_mean(key, row))]
    advice = _usual_keys(row) or (
        near[0] if near else "other names are given as ++data.input_key=... ++data.output_key=..."
    )
    return f"{wanted} among its keys {', '.join(map(repr, row))}; {advice}"


def _usual_keys(row: Mapping[str, Any]) -> str | None:
    """What reads a row that is written in another of the usual ways."""
    if "instruction" in row and "output" in row:
        return "rows of Alpaca are read with ++data.dataset_name=alpaca"
    if isinstance(row.get("conversations"), list) and _roles(row["conversations"]) == "from":
        return (
            "chats of NeMo-Aligner are read with ++data.dataset_name=aligner_chat; those of ShareGPT have to be "
            "written as messages of 'role' (user, assistant) and 'content'"
        )
    chat = next((key for key, value in row.items() if _roles(value) == "role"), None)
    if chat is not None:
        return f"its chat is read with ++data.chat_key={chat}"
    pair = next((pair for pair in _PAIRS if all(key in row for key in pair)), None)
    if pair is not None:
        return f"they are read with ++data.input_key={pair[0]} ++data.output_key={pair[1]}"
    if isinstance(row.get("text"), str):
        return "texts, of which everything is trained, are read with ++data.dataset_name=text"
    return None


def _roles(value: Any) -> str | None:
    """The key by which the turns of a chat say who speaks, ``role`` or ``from``; None of what is no chat."""
    first = value[0] if isinstance(value, list) and value else None
    return next((key for key in ("role", "from") if isinstance(first, Mapping) and key in first), None)


def _pair_fault(row: Mapping[str, Any], keys: RowKeys) -> str | None:
    contents = (row[keys.input_key], row[keys.output_key])
    if contents[1] is None:
        return f"{keys.output_key!r} is null, so there is nothing to learn"
    return next(
        filter(None, (_content_fault(content, number) for number, content in enumerate(contents, start=1))), None
    )


def _messages_fault(messages: Any) -> str | None:
    if not isinstance(messages, list) or not messages:
        return "the messages are not a list of one or more"
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            return f"message {number} has no role"
        fault = _content_fault(message.get("content"), number)
        if fault:
            return fault
    if messages[-1]["role"] != "assistant":
        known = messages[-1]["role"] in _ROLES
        advice = "" if known else f"; roles are {', '.join(_ROLES)}"
        return f"the last message comes from {messages[-1]['role']!r}, not from 'assistant'{advice}"
    return None


def _content_fault(content: Any, number: int) -> str | None:
    if isinstance(content, (str, list, type(None))):
        return None
    return f"the content of message {number} is {type(content).__name__}, not text"
