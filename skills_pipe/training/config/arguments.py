"""Arguments that the files give to a class go when an override names another one: they were meant for the first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from skills_pipe.training.config.grammar import Override
from skills_pipe.training.config.origins import Origins

if TYPE_CHECKING:
    from omegaconf import DictConfig

_SECTIONS: Final = ("policy.optimizer", "policy.scheduler")
_RATE: Final = "policy.lr"
_KEY: Final = re.compile(r"\$\{(policy\.\w+)\}")
_NOTHING: Final = object()

Named = Mapping[str, Mapping[str, Any]]
"""Sections that name a class, by their keys; plain, with interpolations as they are written."""


def named_classes(tree: DictConfig, overrides: Sequence[Override]) -> Named:
    """The sections of a tree in which ``overrides`` may name another class."""
    from omegaconf import OmegaConf

    names = [section for section in _SECTIONS if any(_reaches(one, f"{section}.name") for one in overrides)]
    if not names:
        return {}
    plain = OmegaConf.to_container(tree, resolve=False)
    sections = {name: _inside(plain, name) for name in names}
    return {name: value for name, value in sections.items() if isinstance(value, Mapping)}


def drop_arguments(tree: DictConfig, before: Named, overrides: Sequence[Override], origins: Origins) -> None:
    """Take out of ``tree`` the arguments that no override gave to the class that one has named.

    Those of a file stay where an override changes the name alone: it may well be a class with the same arguments.
    ``lr`` stays where it is that of the run, and so do others that are keys which somebody set.

    Args:
        tree: with the overrides, not resolved.
        before: :func:`named_classes` without them.
        overrides: in order.
        origins: where keys were set.
    """
    from omegaconf import open_dict

    now = named_classes(tree, overrides)
    for section in before.keys() & now.keys():
        if before[section].get("name") == now[section].get("name"):
            continue
        if _is_in_files(section, origins) and not _came_as_a_section(section, overrides):
            continue
        for name in _misplaced(section, before[section], now[section], overrides, origins):
            with open_dict(tree):
                del tree["policy"][section.rpartition(".")[2]]["kwargs"][name]


def _misplaced(
    section: str, before: Mapping[str, Any], now: Mapping[str, Any], overrides: Sequence[Override], origins: Origins
) -> Iterator[Any]:
    given, left = before.get("kwargs"), now.get("kwargs")
    if not isinstance(given, Mapping) or not isinstance(left, Mapping):
        return
    for name, value in given.items():
        kept = any(_sets(one, f"{section}.kwargs.{name}") for one in overrides)
        if name in left and not kept and not _is_of_the_run(value, overrides, origins):
            yield name


def _is_in_files(key: str, origins: Origins) -> bool:
    return Origins(files=origins.files, overrides=(), given=origins.given).rank(key) > 0


def _came_as_a_section(section: str, overrides: Sequence[Override]) -> bool:
    naming = [one for one in overrides if _sets(one, f"{section}.name")]
    return bool(naming) and naming[-1].key != f"{section}.name"


def _is_of_the_run(value: Any, overrides: Sequence[Override], origins: Origins) -> bool:
    """Whether an argument follows the learning rate, or another key that somebody set."""
    match = _KEY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return False
    return match[1] == _RATE or any(_sets(one, match[1]) for one in overrides) or _is_in_files(match[1], origins)


def _sets(override: Override, key: str) -> bool:
    """Whether it gives ``key`` a value, or something inside of it."""
    if override.key.startswith(f"{key}."):
        return True
    return _reaches(override, key) and _inside(override.value, key.removeprefix(override.key)) is not _NOTHING


def _reaches(override: Override, key: str) -> bool:
    """Whether it is about ``key`` or a section around it."""
    return f"{key}.".startswith(f"{override.key}.")


def _inside(value: Any, key: str) -> Any:
    """What stands in nested mappings at a dotted key."""
    for part in filter(None, key.split(".")):
        if not isinstance(value, Mapping) or part not in value:
            return _NOTHING
        value = value[part]
    return value
