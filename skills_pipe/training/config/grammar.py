"""The grammar of overrides: Hydra's own parser, and a short way for the plain ones that most are.

Importing Hydra takes longer than everything else that a dry run does with the configuration, so ``key=word`` and
``key=number`` are read here; a test holds that Hydra reads them the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.origins import Setting

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override as HydraOverride


class Action(Enum):
    """What an override does to its key: the sign before it."""

    CHANGE = ""
    ADD = "+"
    FORCE_ADD = "++"
    DELETE = "~"


@dataclass(frozen=True, kw_only=True)
class Override(Setting):
    """A parsed override; ``value`` is plain Python, None for a deletion that names none."""

    action: Action
    value: Any


def parse_overrides(texts: Sequence[str]) -> tuple[list[Override], list[ConfigError]]:
    """Read overrides; each one that cannot be read becomes a problem, the others are returned."""
    overrides, problems = [], []
    for text in texts:
        try:
            overrides.append(read_plain(text) or read_with_hydra(text))
        except ConfigError as problem:
            problems.append(problem)
    return overrides, problems


_PLAIN: Final = re.compile(
    r"(\+\+|\+|)([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)=([A-Za-z_/][A-Za-z0-9_/.-]*|[0-9][0-9.eE-]*)", re.ASCII
)
_WHOLE: Final = re.compile(r"0|[1-9][0-9]*")
_FLOAT: Final = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE]-?[0-9]+)?")
_WORDS: Final = {"null": None, "true": True, "false": False}


def read_plain(text: str) -> Override | None:
    """An override of a plain value; None for any that needs the whole grammar."""
    match = _PLAIN.fullmatch(text)
    if not match:
        return None
    sign, key, written = match.groups()
    if written.lower() in _WORDS:
        value: Any = _WORDS[written.lower()]
    elif _WHOLE.fullmatch(written):
        value = int(written)
    elif _FLOAT.fullmatch(written):
        value = float(written)
    elif written[0].isdigit() or written.lower() in ("nan", "inf"):
        return None
    else:
        value = written
    return Override(key=key, text=text, action=Action(sign), value=value)


def read_with_hydra(text: str) -> Override:
    """Any override.

    Raises:
        ConfigError: it cannot be read, or is of a kind that has no meaning here.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise _unreadable(text) from error
    _refuse_other_kinds(parsed, text)
    return Override(key=parsed.key_or_group, text=text, action=_action(parsed), value=_plain(parsed.value()))


def _unreadable(text: str) -> ConfigError:
    if "=" not in text:
        return ConfigError(f"{text!r} is no override", fix="write key=value, or ~key to remove a key")
    if text.startswith("-"):
        return ConfigError(f"{text!r} is no override", fix=f"write ++{text.lstrip('-')}")
    return ConfigError(
        f"the override {text!r} cannot be read",
        fix="quote its value for the configuration: key='...', inside shell quotes",
    )


def _refuse_other_kinds(parsed: HydraOverride, text: str) -> None:
    if parsed.is_sweep_override():
        key, _, value = text.partition("=")
        raise ConfigError(
            f"the override {text!r} names several values",
            fix=f"write a list, {key}=[{value}], or quote the text, {key}='{value}'",
        )
    if parsed.package is not None:
        raise ConfigError(f"the override {text!r} names a package with @", fix="there are no packages; write key=value")


def _action(parsed: HydraOverride) -> Action:
    if parsed.is_delete():
        return Action.DELETE
    if parsed.is_force_add():
        return Action.FORCE_ADD
    return Action.ADD if parsed.is_add() else Action.CHANGE


def _plain(value: Any) -> Any:
    """Hydra's value with its quoted strings turned into plain ones, also as keys."""
    if isinstance(value, dict):
        return {str(name) if hasattr(name, "quote") else name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
