"""The short way to a plain tree, for the packaged defaults with plain overrides: what most runs are started with.

Importing OmegaConf and reading each ``${...}`` by its grammar takes a quarter of a dry run. What the packaged defaults
hold and plain values do to them is little, so it is read here; a test holds that OmegaConf reads it the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeGuard

from skills_pipe.training.config.grammar import Action, Override
from skills_pipe.training.config.origins import PACKAGED, Origins
from skills_pipe.training.config.read import known_keys
from skills_pipe.training.config.resolvers import UNKNOWN, Unresolved, is_interpolated, not_set
from skills_pipe.training.config.yaml_text import load_yaml


def resolve_quickly(overrides: Sequence[Override], origins: Origins) -> tuple[dict[str, Any], Unresolved] | None:
    """What ``resolve`` makes of the packaged defaults under ``overrides``; None when only OmegaConf can tell."""
    tree: dict[str, Any] = load_yaml(PACKAGED.read_text(encoding="utf-8"))
    try:
        for override in overrides:
            _apply(tree, override)
        leaves = list(_leaves(tree))
        problems = Unresolved(derived=frozenset(key for key, inside, name in leaves if is_interpolated(inside[name])))
        for key, inside, name in leaves:
            if inside[name] == "???":
                problems.missing.append(not_set(key, origins))
                inside[name] = UNKNOWN
        for _, inside, name in leaves:
            inside[name] = _value(inside[name], tree)
    except _NotPlainError:
        return None
    return tree, problems


class _NotPlainError(Exception):
    """Something that has to go the long way."""


def _apply(tree: dict[str, Any], override: Override) -> None:
    """Set one scalar where a scalar stands, or anew in a section that is there."""
    if override.key == "policy.optimizer.name":  # its arguments may have to go
        raise _NotPlainError
    *outer, name = override.key.split(".")
    section: Any = tree
    for part in outer:
        section = section.get(part) if _is_section(section) else None
    anew = override.action is Action.FORCE_ADD or override.key in known_keys()
    if not _is_section(section) or not name.isidentifier() or not (name in section or anew):
        raise _NotPlainError
    if override.action not in (Action.CHANGE, Action.FORCE_ADD) or isinstance(section.get(name), dict | list):
        raise _NotPlainError
    if isinstance(override.value, dict | list) or override.value == "???" or is_interpolated(override.value):
        raise _NotPlainError
    section[name] = override.value


def _is_section(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key, container and name in it of every leaf, in the order of the file."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in items:
        dotted = f"{key}.{name}" if key else str(name)
        if isinstance(item, dict | list):
            yield from _leaves(item, dotted)
        else:
            yield dotted, value, name


_REFERENCE: Final = r"\$\{([a-z_]+(?:\.[a-z_]+)*)\}"
_PRODUCT: Final = re.compile(rf"\$\{{mul:{_REFERENCE}, ?{_REFERENCE}\}}")
_ONE: Final = re.compile(_REFERENCE)


def _value(value: Any, tree: dict[str, Any]) -> Any:
    """A value with what it refers to put in."""
    if not is_interpolated(value):
        return value
    if match := _ONE.fullmatch(value):
        return _value(_get(tree, match[1]), tree)
    if match := _PRODUCT.fullmatch(value):
        left, right = (_value(_get(tree, key), tree) for key in match.groups())
        if type(left) not in (int, float) or type(right) not in (int, float):
            raise _NotPlainError
        return left * right
    parts = _ONE.split(value)
    parts[1::2] = [_text(_value(_get(tree, key), tree)) for key in parts[1::2]]
    return _text("".join(parts))


def _get(tree: dict[str, Any], key: str) -> Any:
    value: Any = tree
    for part in key.split("."):
        if not _is_section(value) or part not in value:
            raise _NotPlainError
        value = value[part]
    if isinstance(value, dict | list):
        raise _NotPlainError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or is_interpolated(value):
        raise _NotPlainError
    return value
