"""Keys for inner programs in Hydra's override grammar, ``++policy.model_name=...``, with values of any text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from skills_pipe.artifacts.result_keys import NOT_OF_RESULT

# What Hydra's grammar takes without quotes, and what it would then read as something other than a text.
_PLAIN = re.compile(r"[A-Za-z0-9_/\-.%*@:+?|]+")
_NOT_TEXT = re.compile(r"(?i)true|false|null|nan|[+-]?(inf|[\d_.]+(e[+-]?\d+)?)")


def override(key: str, value: str | int | bool | tuple[int, ...]) -> str:
    """``++key=value``, quoted so that the program reads back the very value."""
    if isinstance(value, bool):
        return f"++{key}={str(value).lower()}"
    if isinstance(value, int):
        return f"++{key}={value}"
    if isinstance(value, tuple):
        return f"++{key}=[{','.join(str(item) for item in value)}]"
    return f"++{key}={quote(value)}"


def quote(text: str) -> str:
    """``text`` as a value of an override."""
    if _PLAIN.fullmatch(text) and not _NOT_TEXT.fullmatch(text):
        return text
    # Inside quotes a backslash is one, but for those right before a quote (Hydra's grammar, "quoted values").
    escaped = re.sub(r"(\\*)('|$)", lambda match: match.group(1) * 2 + ("\\'" if match.group(2) else ""), text)
    return f"'{escaped}'"


def key_of(word: str) -> str:
    """The key of an override: ``a.b`` of ``++a.b=c``, ``+a.b=c`` and ``~a.b``."""
    return word.lstrip("+~").partition("=")[0]


def value_of(words: Iterable[str], key: str) -> str | None:
    """The value that the last override of ``key`` sets, without its quotes; None when there is none."""
    found = None
    for word in words:
        if key_of(word) == key and "=" in word:
            found = word.partition("=")[2]
    if found and len(found) >= 2 and found[0] == found[-1] and found[0] in "'\"":
        return found[1:-1]
    return found


def path_of(words: Iterable[str], key: str) -> str | None:
    """The file, folder or hub id that the last override of ``key`` names; None for null and for an interpolation."""
    value = value_of(words, key)
    return None if not value or value == "null" or "${" in value else value


def key_that_names(path: str, words: Iterable[str], read: Callable[[str], str]) -> str | None:
    """The override that gives ``path``, once ``read`` has made a path of what was typed: ``++data.val_data_path``."""
    for word in words:
        given = path_of([word], key_of(word))
        if given is not None and path in (given, read(given)):
            return f"++{key_of(word)}"
    return None


def of_result(words: Iterable[str]) -> dict[str, str]:
    """Key -> value of those words that decide what a program makes; how it logs or starts is not among them.

    The order of words does not matter, and of several for one key the last one counts.
    """
    found: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        if not key_of(word).startswith(NOT_OF_RESULT):
            found[f"~{key_of(word)}" if name.startswith("~") else f"++{key_of(word)}"] = value
    return found
