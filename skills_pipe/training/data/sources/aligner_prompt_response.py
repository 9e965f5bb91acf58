"""Rows that a template puts together to one text: the prompt-response format of NeMo-Aligner."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from skills_pipe.errors import ConfigError
from skills_pipe.training.data.rows import BadRow, CutEnd, Pieces, Row, Segment

_PLACE: Final = re.compile(r"( *)\{([^{}]+)\}")
_ESCAPE: Final = re.compile(r"\\(n|t|r|\\|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})")
_PLAIN_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


@dataclass(frozen=True)
class _Part:
    """A stretch of the template: text, or the value of ``key`` with the blanks before it."""

    text: str
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class AlignerPromptResponse:
    """Each value is put at its place without blanks around it; the answer, the last place, is trained.

    Attributes:
        prompt_template: text with ``{key}`` for values of the row; it ends with the answer's. ``\\n`` and the like may
            be written as escapes.
        truncation_field: keys, separated by commas, whose values are cut when a row is too long.
        truncation_method: the end of them that is cut off.

    Raises:
        ConfigError: the template does not end with a key, or a key to be cut is not in it.
    """

    prompt_template: str = "{input} {output}"
    truncation_field: str = "input"
    truncation_method: CutEnd = "right"

    def __post_init__(self) -> None:
        keys = [part.key for part in self._parts if part.key]
        if not self._parts or self._parts[-1].key is None:
            raise ConfigError(
                f"the prompt template {self.prompt_template!r} does not end with the answer",
                where="data.prompt_template",
                fix="end it with the key of the answer in braces, such as {output}",
            )
        unknown = [key for key in self._cut_keys if key not in keys[:-1]]
        if unknown:
            raise ConfigError(
                f"{unknown[0]!r} is no key of the prompt in {self.prompt_template!r}",
                where="data.truncation_field",
                fix=f"name keys of it: {', '.join(map(str, keys[:-1]))}" if keys[:-1] else "leave it empty",
            )

    def rows(self, value: Any, where: str) -> Iterator[Row]:
        """The text of a row, cut at the places of its values."""
        if not isinstance(value, Mapping):
            yield BadRow(where=where, what="not a JSON object")
            return
        for part in self._parts:
            if part.key and not isinstance(value.get(part.key), str):
                yield BadRow(where=where, what=_fault(value, part.key))
                return
        answer = len(self._parts) - 1
        segments = [
            Segment(
                text=part.text + (value[part.key].strip(" ") if part.key else ""),
                trained=index == answer,
                cut=self.truncation_method if index < answer and part.key in self._cut_keys else None,
            )
            for index, part in enumerate(self._parts)
        ]
        yield Pieces(segments=tuple(segments), where=where)

    @cached_property
    def _cut_keys(self) -> tuple[str, ...]:
        return tuple(key.strip() for key in self.truncation_field.split(",") if key.strip())

    @cached_property
    def _parts(self) -> tuple[_Part, ...]:
        template = _ESCAPE.sub(lambda found: _unescaped(found[1]), self.prompt_template)
        parts, position = [], 0
        for place in _PLACE.finditer(template):
            if place.start() > position:
                parts.append(_Part(template[position : place.start()]))
            parts.append(_Part(place[1], place[2]))
            position = place.end()
        if position < len(template):
            parts.append(_Part(template[position:]))
        return tuple(parts)


def _unescaped(code: str) -> str:
    return _PLAIN_ESCAPES.get(code) or chr(int(code[1:], 16))


def _fault(row: Mapping[str, Any], key: str) -> str:
    if key not in row:
        return f"no {key!r} among its keys {', '.join(map(repr, row))}"
    return f"{key!r} is {type(row[key]).__name__}, not text"
