"""Options -> the command line that gives them: how a run was asked for, whether in a shell or in Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from skills_pipe.pipeline.cluster.config import ClusterConfig, is_secret
from skills_pipe.pipeline.options.declaration import REQUIRED, Kind, Option, options_of
from skills_pipe.pipeline.plan import Mount

HIDDEN = "***"
"""In place of a value whose name says that it is a secret."""

_NAME = re.compile(r"(\w+)=")
_VALUE = re.compile(r"'[^']*'|\"[^\"]*\"|\S+")


def command_line(command: str, options: Any, extras: Iterable[str]) -> tuple[str, ...]:
    """The words behind ``ns`` that make ``options``; what has its default is left out, secrets are hidden.

    Args:
        command: ``nemo_rl sft``.
        options: an instance of the options of that command.
        extras: words for the inner program.
    """
    flags: list[str] = []
    arguments: list[str] = []
    for option in options_of(type(options)):
        value = getattr(options, option.name)
        if option.default is not REQUIRED and value == option.default:
            continue
        if option.kind is Kind.ARGUMENT:
            words = _texts(value)
            arguments += ["--", *words] if option.declaration.verbatim else words
        elif option.kind is Kind.SWITCH:
            # Python can clear a switch that has no flag for it.
            flags += (option.on if value else option.off or (f"--no-{option.name}",))[:1]
        else:
            flags += _valued(option, value)
    return tuple(hidden(word) for word in (*command.split(), *flags, *extras, *arguments))


def flag_of(value: str, options: Any, read: Callable[[str], str]) -> str | None:
    """The option that gives ``value``, once ``read`` has made a path of what was typed: ``--hf_model``."""
    for option in options_of(type(options)):
        given = getattr(options, option.name)
        texts = [text for text in (given if isinstance(given, tuple) else (given,)) if isinstance(text, str)]
        if any(value in (text, read(text)) for text in texts):
            return option.spelling
    return None


def hidden(word: str) -> str:
    """A word without the values in it whose names are those of secrets: ``++wandb.api_key=***``."""
    for name in reversed(list(_NAME.finditer(word))):
        value = _VALUE.match(word, name.end()) if is_secret(name[1]) else None
        if value:
            word = word[: value.start()] + HIDDEN + word[value.end() :]
    return word


def _valued(option: Option, value: Any) -> list[str]:
    texts = _texts(value)
    if option.declaration.separator and len(texts) > 1:
        texts = [option.declaration.separator.join(texts)]
    return [f"--{option.name}={text}" for text in texts]


def _texts(value: Any) -> list[str]:
    if isinstance(value, ClusterConfig):
        return [value.name]
    if isinstance(value, Mapping):
        return ["(given as a mapping)"]
    if isinstance(value, tuple | list):
        return [text for item in value for text in _texts(item)]
    if isinstance(value, Mount):
        return [f"{value.source}:{value.target}{':ro' if value.read_only else ''}"]
    if isinstance(value, Enum):
        return [str(value.value)]
    return [] if value is None else [str(value)]
