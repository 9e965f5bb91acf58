"""Values of options from text or Python values, by the type of their field."""

from __future__ import annotations

import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any

from skills_pipe.errors import OptionError, did_you_mean

_TRUE = ("true", "yes", "1")
_FALSE = ("false", "no", "0")


def coerce(value: Any, annotation: Any, *, separator: str | None = None) -> Any:
    """``value`` as ``annotation`` says: str, int, float, bool, an Enum, ``tuple[X, ...]`` or one of these or None.

    Raises:
        OptionError: the value does not fit.
    """
    annotation = without_none(annotation)
    if typing.get_origin(annotation) is tuple:
        item_type = typing.get_args(annotation)[0]
        return tuple(coerce(item, item_type) for item in _items(value, separator))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _member(value, annotation)
    converters = {bool: _boolean, int: _integer, float: _number, str: _text}
    return converters[annotation](value)


def describe(annotation: Any) -> str:
    """What the help shows for a value of this type."""
    annotation = without_none(annotation)
    if typing.get_origin(annotation) is tuple:
        return describe(typing.get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "|".join(member.value for member in annotation)
    return {int: "N", float: "X", bool: "true|false"}.get(annotation, "TEXT")


def without_none(annotation: Any) -> Any:
    """``X`` for ``X | None``."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return next(part for part in typing.get_args(annotation) if part is not types.NoneType)
    return annotation


def _items(value: Any, separator: str | None) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [item for part in value for item in (_items(part, separator) if isinstance(part, str) else [part])]
    if isinstance(value, str) and separator:
        return [part.strip() for part in value.split(separator) if part.strip()]
    return [value]


def _member(value: Any, kind: type[Enum]) -> Enum:
    if isinstance(value, kind):
        return value
    choices = [str(member.value) for member in kind]
    text = str(value.value) if isinstance(value, Enum) else str(value)
    if text not in choices:
        advice = did_you_mean(text, choices)
        raise OptionError(f"{text!r} is not one of {', '.join(choices)}", fix=advice)
    return kind(text)


def _text(value: Any) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise OptionError(f"{value!r} is not a text")


def _integer(value: Any) -> int:
    try:
        if isinstance(value, (int, str)) and not isinstance(value, bool):
            return int(value)
    except ValueError:
        pass
    raise OptionError(f"{value!r} is not a whole number")


def _number(value: Any) -> float:
    try:
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            return float(value)
    except ValueError:
        pass
    raise OptionError(f"{value!r} is not a number")


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise OptionError(f"{value!r} is neither true nor false")
