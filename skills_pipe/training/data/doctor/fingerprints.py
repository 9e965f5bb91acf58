"""Rows that say the same: fingerprints of their text, in which case and blanks do not count."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from skills_pipe.training.data.rows import Conversation, Pieces

Fingerprint = bytes

_EXAMPLES: Final = 3


@dataclass(frozen=True, kw_only=True)
class RowFingerprints:
    """Fingerprints of one row, 16 bytes each.

    Attributes:
        whole: of all that it says.
        prompt: of all before the last answer, None where there is nothing before it.
    """

    whole: Fingerprint
    prompt: Fingerprint | None


@dataclass(kw_only=True)
class Known:
    """Rows that were seen.

    Attributes:
        whole: fingerprint -> where the first row of that text stands.
        prompts: the same of prompts.
    """

    whole: dict[Fingerprint, str] = field(default_factory=dict)
    prompts: dict[Fingerprint, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Repeats:
    """How many rows were seen before, and the first of them.

    Attributes:
        rows: rows whose whole text was there before.
        prompts: rows of which only the prompt was.
        examples: (row, earlier row) of the first repeated rows, then of the first repeated prompts.
    """

    rows: int = 0
    prompts: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)
    prompt_examples: list[tuple[str, str]] = field(default_factory=list)


def note_repeat(repeats: Repeats, known: Known, found: RowFingerprints, where: str) -> None:
    """Count a row that is in ``known``."""
    if found.whole in known.whole:
        repeats.rows += 1
        _example(repeats.examples, where, known.whole[found.whole])
    elif found.prompt is not None and found.prompt in known.prompts:
        repeats.prompts += 1
        _example(repeats.prompt_examples, where, known.prompts[found.prompt])


def remember(known: Known, found: RowFingerprints, where: str) -> None:
    """Add a row to ``known``; the first of equal ones stays."""
    known.whole.setdefault(found.whole, where)
    if found.prompt is not None:
        known.prompts.setdefault(found.prompt, where)


def row_fingerprints(row: Conversation | Pieces) -> RowFingerprints:
    """The fingerprints of a row; tools count as what they are, tool calls as part of their message."""
    if isinstance(row, Pieces):
        texts = [(str(segment.trained), segment.text) for segment in row.segments]
        last = next((index for index, segment in enumerate(row.segments) if segment.trained), len(texts))
    else:
        texts = [(str(message["role"]), _said(message)) for message in row.messages]
        last = len(texts) - 1
    return RowFingerprints(whole=_digest(texts), prompt=_digest(texts[:last]) if last > 0 else None)


def _example(examples: list[tuple[str, str]], where: str, earlier: str) -> None:
    examples += [(where, earlier)][: _EXAMPLES - len(examples)]


def _said(message: dict[str, Any]) -> str:
    others = {key: value for key, value in message.items() if key not in ("role", "content") and value is not None}
    content = message.get("content")
    text = content if isinstance(content, str) else _json(content)
    return f"{text} {_json(others)}" if others else text


def _digest(texts: Iterable[tuple[str, str]]) -> Fingerprint:
    state = hashlib.blake2b(digest_size=16)
    for part in _parts(texts):
        state.update(part.encode("utf-8", "surrogatepass"))
        # A byte that UTF-8 never has: parts cannot run into each other.
        state.update(b"\xff")
    return state.digest()


def _parts(texts: Iterable[tuple[str, str]]) -> Iterator[str]:
    for role, text in texts:
        yield role
        yield " ".join(text.casefold().split())


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError:
        # Half a character, in what no template shows.
        return json.dumps(value, default=str, sort_keys=True)
