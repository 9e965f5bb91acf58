"""Trainers by name, as the key ``train.trainer`` of a configuration gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from skills_pipe.errors import ConfigError, did_you_mean

Trainer = TypeVar("Trainer", bound=type)

_TRAINERS: dict[str, type] = {}


@overload
def register_trainer(name: Trainer) -> Trainer: ...


@overload
def register_trainer(name: str) -> Callable[[Trainer], Trainer]: ...


def register_trainer(name: str | type) -> Any:
    """Decorator of a trainer class: ``@register_trainer``, or ``@register_trainer("another name")``."""
    if isinstance(name, str):
        return lambda cls: _register(cls, name)
    return _register(name, name.__name__)


def get_trainer(name: str) -> Any:
    """The trainer class of that name, whose capitals do not matter.

    Raises:
        ConfigError: there is none.
    """
    if name.lower() not in _TRAINERS:
        names = {found.lower(): found for found in (cls.__name__ for cls in _TRAINERS.values())}
        raise ConfigError(
            f"no trainer {name!r} is registered",
            where="train.trainer",
            fix=did_you_mean(name.lower(), names) or f"use {', '.join(names.values())}",
        )
    return _TRAINERS[name.lower()]


def _register(cls: Trainer, name: str) -> Trainer:
    _TRAINERS[name.lower()] = cls
    return cls
