"""Overrides in Hydra's grammar: ``k=v`` changes, ``+k=v`` adds, ``++k=v`` does either, ``~k`` removes.

The grammar is Hydra's own parser. How an override is applied follows Hydra with two differences in the user's favour:
``k=v`` also works for a known key that the files leave out, and ``~k`` for a key whose value is null.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from skills_pipe.errors import ConfigError, did_you_mean
from skills_pipe.training.config.origins import Setting

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override as HydraOverride
    from omegaconf import DictConfig


_PLAIN_TEXT: Final = re.compile(r"[A-Za-z_/][A-Za-z0-9_/.-]*")
_WORDS: Final = ("null", "true", "false", "nan", "inf")


class Action(Enum):
    """What an override does to its key."""

    CHANGE = "k=v"
    ADD = "+k=v"
    FORCE_ADD = "++k=v"
    DELETE = "~k"


@dataclass(frozen=True, kw_only=True)
class Override(Setting):
    """A parsed override; ``value`` is plain Python, None for a deletion that names none."""

    action: Action
    value: Any


def format_override(key: str, value: Any) -> str:
    """The override ``++key=value`` from which the parser reads exactly ``value``, quoted as little as possible.

    Args:
        key: dotted key.
        value: None, a bool, number or text, or a list of such; for a section, write one override
            for each key. ``${...}`` in a text is an interpolation.
    """
    return f"++{key}={_literal(value)}"


@dataclass(frozen=True, kw_only=True)
class NotApplied:
    """What :func:`apply_overrides` left out: keys that do not exist, and settings that cannot be made."""

    unknown: list[ConfigError] = field(default_factory=list)
    wrong: list[ConfigError] = field(default_factory=list)


def parse_overrides(texts: Sequence[str]) -> tuple[list[Override], list[ConfigError]]:
    """Read overrides; each one that cannot be read becomes a problem, the others are returned."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    overrides, problems = [], []
    for text in texts:
        try:
            parsed = parser.parse_override(text)
        except HydraException:
            problems.append(_unreadable(text))
            continue
        problem = _unsupported(parsed, text)
        if problem:
            problems.append(problem)
        else:
            overrides.append(
                Override(key=parsed.key_or_group, text=text, action=_action(parsed), value=_plain(parsed.value()))
            )
    return overrides, problems


def apply_overrides(tree: DictConfig, overrides: Sequence[Override], known: Collection[str]) -> NotApplied:
    """Change ``tree`` in place; return what could not be applied.

    Args:
        tree: the merged files, not resolved.
        overrides: in order; a later one wins.
        known: dotted keys of the schema, which count as present.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    OmegaConf.set_struct(tree, True)
    problems = NotApplied()
    for override in overrides:
        if override.action is Action.CHANGE and override.key not in known and not _exists(tree, override.key):
            problems.unknown.append(_unknown(override, known))
            continue
        try:
            problem = _apply(tree, override, known)
        except OmegaConfBaseException as error:
            problem = ConfigError(f"{override.key} cannot be set so: {_first_line(error)}", where=_where(override))
        if problem:
            problems.wrong.append(problem)
    return problems


def _apply(tree: DictConfig, override: Override, known: Collection[str]) -> ConfigError | None:
    from omegaconf import OmegaConf

    key, value = override.key, override.value
    if override.action is Action.DELETE:
        return _delete(tree, override)
    present = OmegaConf.select(tree, key, throw_on_missing=False) is not None
    if override.action is Action.ADD and present and not isinstance(value, dict | list):
        return ConfigError(
            f"{key} is already set", where=_where(override), fix=f"write {key}=... to change it, or ++{key}=..."
        )
    OmegaConf.update(tree, key, value, merge=True, force_add=override.action is not Action.CHANGE or key in known)
    return None


def _unknown(override: Override, known: Collection[str]) -> ConfigError:
    """A key that is in no file: a misspelt one, or one of a free section such as an optimizer's kwargs."""
    section = override.key.rpartition(".")[0]
    free = section in known and not any(key.startswith(f"{section}.") for key in known)
    fix = (None if free else did_you_mean(override.key, known)) or f"write ++{override.text} to add it"
    return ConfigError(f"unknown key {override.key}", where=_where(override), fix=fix)


def _delete(tree: DictConfig, override: Override) -> ConfigError | None:
    from omegaconf import DictConfig, OmegaConf, open_dict

    key = override.key
    if not _exists(tree, key):
        return ConfigError(f"{key} cannot be removed: it is not set", where=_where(override), fix="check its name")
    found = OmegaConf.select(tree, key, throw_on_missing=False)
    if override.value is not None and override.value != found:
        return ConfigError(
            f"{key} is {found!r}, not {override.value!r}",
            where=_where(override),
            fix=f"write ~{key} to remove it anyway",
        )
    section, _, name = key.rpartition(".")
    parent = OmegaConf.select(tree, section) if section else tree
    with open_dict(tree):
        del parent[name if isinstance(parent, DictConfig) else int(name)]
    return None


def _exists(tree: DictConfig, key: str) -> bool:
    """Whether ``key`` stands in the tree, be it as null, ``???`` or an interpolation."""
    from omegaconf import DictConfig, ListConfig, OmegaConf

    section, _, name = key.rpartition(".")
    parent = OmegaConf.select(tree, section, throw_on_missing=False) if section else tree
    if isinstance(parent, DictConfig):
        return name in parent.keys()  # noqa: SIM118  (DictConfig's own "in" is False for ???)
    return isinstance(parent, ListConfig) and name.isdigit() and int(name) < len(parent)


def _unreadable(text: str) -> ConfigError:
    if "=" not in text:
        return ConfigError(f"{text!r} is no override", fix="write key=value, or ~key to remove a key")
    return ConfigError(
        f"the override {text!r} cannot be read",
        fix="quote its value for the configuration: key='...', inside shell quotes",
    )


def _unsupported(parsed: HydraOverride, text: str) -> ConfigError | None:
    if parsed.is_sweep_override():
        key, _, value = text.partition("=")
        return ConfigError(
            f"the override {text!r} names several values",
            fix=f"write a list, {key}=[{value}], or quote the text, {key}='{value}'",
        )
    if parsed.package is not None:
        return ConfigError(
            f"the override {text!r} names a package with @", fix="there are no packages; write key=value"
        )
    return None


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


def _where(override: Override) -> str:
    return f"override {override.text!r}"


def _literal(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(_literal(item) for item in value) + "]"
    if isinstance(value, str):
        return value if _PLAIN_TEXT.fullmatch(value) and value.lower() not in _WORDS else _quoted(value)
    return repr(value)


def _quoted(text: str) -> str:
    """Text in single quotes; backslashes count as escapes only before a quote, where they are doubled."""
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text)
    return f"'{escaped}'"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
