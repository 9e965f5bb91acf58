"""Typed values out of a mapping, and what is wrong with them, all collected, with the line of each key."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, TypeVar

from skills_pipe.errors import UserError, did_you_mean
from skills_pipe.pipeline.cluster.slurm_time import parse_time

_BRACES = re.compile(r"\{(\w+)\}")

_T = TypeVar("_T")
_E = TypeVar("_E", bound=Enum)


def expand_braces(text: str) -> str:
    """``text`` with every ``{NAME}`` replaced by the environment variable of that name."""
    return _BRACES.sub(lambda match: from_environment(match.group(1), text), text)


def from_environment(name: str, where: str) -> str:
    """The value of an environment variable.

    Raises:
        UserError: it is not set; ``where`` is told.
    """
    if name not in os.environ:
        raise UserError(f"{name} is not set in the environment", where=where, fix=f"export {name}=... first")
    return os.environ[name]


class Reader:
    """Takes typed values out of a mapping and collects what is wrong with them.

    Attributes:
        problems: what is wrong, in the words of the messages.

    Args:
        value: the mapping.
        prefix: before the names of keys in messages: ``ssh_tunnel.``.
        lines: dotted key -> its line in the file, counted from 1, as far as known.
    """

    def __init__(self, value: Mapping[str, Any], prefix: str = "", lines: Mapping[str, int] | None = None) -> None:
        self.problems: list[str] = []
        self._value = value
        self._prefix = prefix
        self._lines = lines or {}

    def inner(self, key: str) -> Reader:
        """A reader of the section ``key``; its problems are told with those of this one."""
        reader = Reader(self.section(key), f"{self._prefix}{key}.", self._lines)
        reader.problems = self.problems
        return reader

    def unknown(self, known: Iterable[str]) -> None:
        """Refuse keys that are not ``known``."""
        known = tuple(known)
        for key in self._value:
            if key not in known:
                advice = did_you_mean(str(key), known)
                self.problem(str(key), "is not a key of cluster configurations" + (f", {advice}" if advice else ""))

    def problem(self, key: str, what: str) -> None:
        """Note that something is wrong with ``key``."""
        name = f"{self._prefix}{key}"
        line = self._lines.get(name)
        self.problems.append(f"line {line}: {name} {what}" if line else f"{name} {what}")

    def given(self, key: str) -> bool:
        """Whether the key is there and has a value."""
        return self._value.get(key) is not None

    def attempt(self, key: str, read: Callable[[], _T]) -> _T | None:
        """What ``read`` returns; its error is one of ``key``."""
        try:
            return read()
        except UserError as error:
            self.problem(key, f"is wrong: {error}")
            return None

    def section(self, key: str) -> Mapping[str, Any]:
        """The mapping under ``key``, empty without one."""
        value = self._value.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.problem(key, "must be a mapping of names to values")
            return {}
        return value

    def text(self, key: str) -> str | None:
        """A single value, as text."""
        value = self._value.get(key)
        if value is None:
            return None
        if isinstance(value, (Mapping, list)):
            self.problem(key, "must be a single value")
            return None
        return str(value)

    def path(self, key: str) -> str | None:
        """An absolute path, its variables expanded."""
        text = self.text(key)
        expanded = self.attempt(key, lambda: expand_braces(text)) if text else None
        if expanded and not expanded.startswith("/"):
            self.problem(key, f"must be an absolute path, not {expanded!r}")
        return expanded

    def texts(self, key: str) -> dict[str, str]:
        """A mapping of names to texts."""
        return {str(name): str(item) for name, item in self.section(key).items()}

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Whether ``key`` is true."""
        value = self._value.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problem(key, f"must be true or false, not {value!r}")
        return value is True

    def count(self, key: str, *, default: int) -> int:
        """A whole number above 0."""
        value = self._value.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self.problem(key, f"must be a whole number above 0, not {value!r}")
            return default
        return value

    def number(self, key: str) -> float | None:
        """A number above 0."""
        value = self._value.get(key)
        if value is None:
            return None
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value <= 0:
            self.problem(key, f"must be a number above 0, not {value!r}")
            return None
        return float(value)

    def choice(self, key: str, kind: type[_E], *, default: _E | None, aliases: Mapping[str, str]) -> _E | None:
        """A member of ``kind``; ``aliases`` are further names of members."""
        text = self.text(key)
        if text is None:
            return default
        try:
            return kind(aliases.get(text, text))
        except ValueError:
            choices = [member.value for member in kind]
            advice = did_you_mean(text, choices)
            self.problem(key, f"must be one of {', '.join(choices)}, not {text!r}" + (f", {advice}" if advice else ""))
            return default

    def each(self, key: str, read: Callable[[str], _T]) -> tuple[_T, ...]:
        """The items of a list, each read by ``read``."""
        value = self._value.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.problem(key, "must be a list")
            return ()
        items = (self.attempt(key, lambda item=item: read(str(item))) for item in value)  # type: ignore[misc]
        return tuple(item for item in items if item is not None)

    def time(self, key: str, value: object) -> int | None:
        """Seconds of a time limit of Slurm."""
        return None if value is None else self.attempt(key, lambda: parse_time(str(value)))
