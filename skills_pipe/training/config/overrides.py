"""What overrides do to a configuration: ``k=v`` changes, ``+k=v`` adds, ``++k=v`` does either, ``~k`` removes.

This follows Hydra with two differences in the user's favour: ``k=v`` also works for a known key that the files leave
out, and ``~k`` for a key whose value is null.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skills_pipe.errors import ConfigError, first_line
from skills_pipe.training.config.grammar import Action, Override
from skills_pipe.training.config.read import meant_key

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True, kw_only=True)
class NotApplied:
    """What :func:`apply_overrides` left out: keys that do not exist, and settings that cannot be made."""

    unknown: list[ConfigError] = field(default_factory=list)
    wrong: list[ConfigError] = field(default_factory=list)


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
            problem = ConfigError(f"{override.key} cannot be set so: {first_line(error)}", where=_where(override))
        if problem:
            problems.wrong.append(problem)
    return problems


def _apply(tree: DictConfig, override: Override, known: Collection[str]) -> ConfigError | None:
    from omegaconf import OmegaConf

    key, value = override.key, override.value
    if override.action is Action.DELETE:
        return _delete(tree, override)
    if _is_set(tree, key) and override.action is Action.ADD and not isinstance(value, dict | list):
        return ConfigError(f"{key} is already set", where=_where(override), fix=f"write ++{key}=... to change it")
    OmegaConf.update(tree, key, value, merge=True, force_add=override.action is not Action.CHANGE or key in known)
    return None


def _unknown(override: Override, known: Collection[str]) -> ConfigError:
    """A key that is in no file: a misspelt one, or one of a free section such as an optimizer's kwargs."""
    section = override.key.rpartition(".")[0]
    free = section in known and not any(key.startswith(f"{section}.") for key in known)
    fix = (None if free else meant_key(override.key, known)) or f"write ++{override.text} to add it"
    return ConfigError(f"unknown key {override.key}", where=_where(override), fix=fix)


def _delete(tree: DictConfig, override: Override) -> ConfigError | None:
    from omegaconf import DictConfig, OmegaConf, open_dict

    key = override.key
    if not _exists(tree, key):
        return ConfigError(f"{key} cannot be removed: it is not set", where=_where(override), fix="check its name")
    if override.value is not None and override.value != (found := OmegaConf.select(tree, key, throw_on_missing=False)):
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


def _is_set(tree: DictConfig, key: str) -> bool:
    """Whether ``key`` has a value, be it one that refers to what is still missing.

    Raises:
        OmegaConfBaseException: there can be no such key, as one with a name in a list.
    """
    from omegaconf import ListConfig, OmegaConf
    from omegaconf.errors import ConfigKeyError

    if OmegaConf.select(tree, key, throw_on_missing=False, throw_on_resolution_failure=False) is not None:
        return True
    section, _, name = key.rpartition(".")
    parent = OmegaConf.select(tree, section) if section else tree
    if isinstance(parent, ListConfig) and not name.isdigit():
        raise ConfigKeyError(f"{section} is a list: its items have numbers")
    return _exists(tree, key) and OmegaConf.is_interpolation(parent, name)


def _where(override: Override) -> str:
    return f"override {override.text!r}"
