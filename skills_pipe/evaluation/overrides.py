"""``++a.b=c`` on a command line to frozen dataclasses: Hydra's grammar, typed, every mistake named at once."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from skills_pipe.errors import OptionError, did_you_mean, first_line

T = TypeVar("T")


def parse_overrides(tokens: Iterable[str]) -> dict[str, Any]:
    """Values by dotted key of ``key=value``, ``+key=value`` and ``++key=value`` tokens; the last one wins.

    Raises:
        OptionError: a token is not an override, or deletes a key.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    values: dict[str, Any] = {}
    for token in tokens:
        try:
            override = parser.parse_override(token)
        except HydraException as error:
            reason = first_line(error)
            raise OptionError(f"cannot read {token!r}: {reason}", fix="write ++key=value") from error
        if override.is_delete() or override.is_sweep_override():
            raise OptionError(f"{token!r} neither sets a key nor gives it one value", fix="write ++key=value")
        values[override.key_or_group] = override.value()
    return values


def apply_overrides(settings: T, values: Mapping[str, Any]) -> T:
    """A copy of a (nested) frozen dataclass with the values of dotted keys replaced.

    Raises:
        OptionError: a key is unknown or a value has the wrong type; all of them are told.
    """
    known = dict(_leaves(settings))
    problems = []
    replaced: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            advice = did_you_mean(key, known) or f"the keys are {', '.join(sorted(known))}"
            problems.append(f"unknown key {key!r}: {advice}")
            continue
        try:
            replaced[key] = _convert(value, known[key])
        except ValueError as error:
            problems.append(f"{key}: {error}")
    if problems:
        raise OptionError("; ".join(problems), where="++ overrides")
    return _replace(settings, replaced)


def _leaves(settings: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted key and annotated type of every field that is no dataclass itself."""
    hints = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", hints[field.name]


def _replace(settings: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    changes = {}
    for field in dataclasses.fields(settings):
        key = f"{prefix}{field.name}"
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _replace(value, values, f"{key}.")
        elif key in values:
            changes[field.name] = values[key]
    return dataclasses.replace(settings, **changes)


def _convert(value: Any, expected: Any) -> Any:
    """``value`` as the annotated type; a number may stand where a string is wanted, never the other way round."""
    origin = get_origin(expected)
    if origin in (Union, types.UnionType):
        options = get_args(expected)
        if value is None and type(None) in options:
            return None
        return _convert(value, next(option for option in options if option is not type(None)))
    if origin is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(_convert(item, get_args(expected)[0]) for item in items)
    if origin is not None and issubclass(origin, Mapping):
        if isinstance(value, dict):
            return value
        raise ValueError(f"{value!r} is no dictionary; write ++key='{{a: 1}}'")
    return _convert_scalar(value, expected)


def _convert_scalar(value: Any, expected: type) -> Any:
    if expected is bool and isinstance(value, bool):
        return value
    if expected is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if expected is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if expected is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{value!r} is no {_NAMES[expected]}")


_NAMES = {bool: "true or false", int: "whole number", float: "number", str: "text"}
