"""Interpolations of the configuration: ``${mul:a,b}``, ``${add:a,b}``, ``${div:a,b}``, ``${max:a,b}``."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from skills_pipe.errors import ConfigError, first_line
from skills_pipe.training.config.origins import Origins

UNKNOWN: Final = "<unknown>"
"""Stands for a value that is missing or could not be resolved, once that has been reported."""


@dataclass(frozen=True, kw_only=True)
class Unresolved:
    """What has no value of its own.

    Attributes:
        derived: keys whose value is an interpolation: what is wrong with them is wrong elsewhere.
        missing: mandatory keys that nobody set (``???``).
        failed: interpolations that could not be resolved.
        followed: such interpolations of the packaged defaults: they fail only after another mistake.
    """

    derived: frozenset[str]
    missing: list[ConfigError] = field(default_factory=list)
    failed: list[ConfigError] = field(default_factory=list)
    followed: list[ConfigError] = field(default_factory=list)


def resolve(tree: Any, origins: Origins) -> tuple[dict[str, Any], Unresolved]:
    """Plain dictionary of a tree with all interpolations resolved; what has no value becomes UNKNOWN."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _register()
    interpolated = _keys_with(tree, is_interpolated)
    problems = Unresolved(derived=frozenset(interpolated))
    for key in _keys_with(tree, lambda value: value == "???"):
        problems.missing.append(not_set(key, origins))
        _set(tree, key, UNKNOWN)
    try:
        return _container(tree), problems
    except (OmegaConfBaseException, RecursionError):
        pass
    for key in interpolated:
        try:
            OmegaConf.select(tree, key)
        except (OmegaConfBaseException, RecursionError) as error:
            kind = problems.failed if origins.rank(key) > 0 else problems.followed
            kind.append(_cannot_be_resolved(key, error, origins.where(key)))
            _set(tree, key, UNKNOWN)
    try:
        return _container(tree), problems
    except (OmegaConfBaseException, RecursionError) as error:
        # The value of a key that has a dot in its name, which no dotted path reaches.
        raise _cannot_be_resolved("a value", error, None) from error


def is_interpolated(value: Any) -> bool:
    """Whether something has to be put into ``value``."""
    return isinstance(value, str) and "${" in value


def not_set(key: str, origins: Origins) -> ConfigError:
    """The problem of a mandatory key that nobody set."""
    return ConfigError(f"{key} is not set", where=origins.where(key), fix=f"set it, {key}=...")


def _cannot_be_resolved(key: str, error: Exception, where: str | None) -> ConfigError:
    reason = first_line(error)
    return ConfigError(f"{key} cannot be resolved: {reason}", where=where, fix="check what stands in ${...}")


def _register() -> None:
    from omegaconf import OmegaConf

    operations: dict[str, Callable[[Any, Any], Any]] = {
        "mul": operator.mul,
        "add": operator.add,
        "div": operator.truediv,
        "max": max,
    }
    for name, operation in operations.items():
        if not OmegaConf.has_resolver(name):
            OmegaConf.register_new_resolver(name, operation)


def _container(tree: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(tree, resolve=True)
    if not isinstance(plain, dict):
        raise TypeError(f"a mapping was expected, not {type(plain)}")
    return {str(name): value for name, value in plain.items()}


def _keys_with(tree: Any, wanted: Callable[[Any], bool]) -> list[str]:
    """Dotted keys of the leaves of an unresolved tree whose text is ``wanted``."""
    from omegaconf import OmegaConf

    found: list[str] = []
    stack = [("", OmegaConf.to_container(tree, resolve=False))]
    while stack:
        key, value = stack.pop()
        if isinstance(value, dict | list):
            items: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
            stack.extend((f"{key}.{name}" if key else str(name), item) for name, item in items)
        elif wanted(value):
            found.append(key)
    return found[::-1]


def _set(tree: Any, key: str, value: str) -> None:
    from omegaconf import OmegaConf

    OmegaConf.update(tree, key, value, merge=False, force_add=True)
