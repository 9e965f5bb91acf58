"""Configuration files: YAML with inheritance by ``defaults:``, laid over the packaged defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from skills_pipe.errors import ConfigError, first_line
from skills_pipe.training.config.origins import PACKAGED
from skills_pipe.training.config.tutorial import is_tutorial, to_canonical
from skills_pipe.training.config.yaml_text import load_yaml

if TYPE_CHECKING:
    from omegaconf import DictConfig, ListConfig

_PARENTS = "defaults"
_REPLACE = "_override_"


@dataclass(frozen=True, kw_only=True)
class Layers:
    """A tree that is not resolved yet, and the files it came from, the one that wins first."""

    tree: DictConfig
    files: tuple[Path, ...]


def load_layers(source: Path | Mapping[str, Any] | None) -> Layers:
    """The packaged defaults with a file and its parents over them, or with sections given as values.

    Raises:
        ConfigError: a file cannot be read, is no YAML mapping, or inherits from itself.
    """
    from omegaconf import OmegaConf

    packaged = load_with_parents(PACKAGED)
    if source is None:
        return packaged
    own = load_with_parents(source) if isinstance(source, Path) else _given(source)
    own = _canonical(own)
    _make_room(packaged.tree, own.tree)
    _refuse_lists(packaged.tree, own)
    tree = OmegaConf.merge(packaged.tree, own.tree)
    return Layers(tree=_as_mapping(tree), files=(*own.files, *packaged.files))


def _refuse_lists(packaged: DictConfig, own: Layers) -> None:
    """A list where a section belongs cannot even be merged."""
    from omegaconf import DictConfig, ListConfig

    for name, section in own.tree.items_ex(resolve=False):
        if isinstance(section, ListConfig) and isinstance(packaged._get_node(name), DictConfig):
            where = str(own.files[0]) if own.files else "the given configuration"
            raise ConfigError(f"{name!s} is a list, not a section of keys", where=where, fix="write keys and values")


def _given(sections: Mapping[str, Any]) -> Layers:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return Layers(tree=_as_mapping(OmegaConf.create(dict(sections))), files=())
    except OmegaConfBaseException as error:
        reason = first_line(error)
        raise ConfigError(f"the configuration cannot be used: {reason}", fix="give plain values") from error


def _canonical(layers: Layers) -> Layers:
    """The same layers with the tutorial's sections brought into the canonical layout."""
    from omegaconf import OmegaConf

    if not is_tutorial(cast("Mapping[str, Any]", layers.tree)):
        return layers
    plain = cast("dict[str, Any]", OmegaConf.to_container(layers.tree, resolve=False))
    return Layers(tree=_as_mapping(OmegaConf.create(to_canonical(plain))), files=layers.files)


def load_with_parents(path: Path, *, children: Sequence[Path] = ()) -> Layers:
    """A file merged over the files that its ``defaults:`` names, relative to its own folder.

    Later parents win over earlier ones, the file wins over all. Lists are replaced, sections merged; a top-level
    section with ``_override_: true`` replaces its parents' section.
    """
    from omegaconf import OmegaConf

    resolved = path.resolve()
    if resolved in children:
        circle = " -> ".join(str(file) for file in (*children, resolved))
        raise ConfigError(f"configuration files inherit from each other in a circle: {circle}", fix="remove one")
    own = _load(path)
    tree = OmegaConf.create({})
    files: list[Path] = []
    parents = _parents(own, path)
    if not parents:  # nothing to merge with, which would copy the whole tree
        _clear_replaced(tree, own)
        return Layers(tree=own, files=(path,))
    for parent in parents:
        layers = load_with_parents(path.parent / parent, children=(*children, resolved))
        tree = merge(tree, layers.tree)
        files = [*layers.files, *files]
    return Layers(tree=merge(tree, own), files=(path, *files))


def merge(base: DictConfig, over: DictConfig) -> DictConfig:
    """``over`` laid on ``base``; both may be changed by this."""
    from omegaconf import OmegaConf

    _clear_replaced(base, over)
    return _as_mapping(OmegaConf.merge(base, over))


def _clear_replaced(base: DictConfig, over: DictConfig) -> None:
    """Take out of ``base`` the sections that ``over`` replaces as a whole, and the marks that say so."""
    from omegaconf import DictConfig

    for name in list(over):
        section = over._get_node(name)
        if isinstance(section, DictConfig) and not section._is_none() and not section._is_missing():
            if section._is_interpolation() or not section.get(_REPLACE, False):
                continue
            section.pop(_REPLACE)
            base.pop(name, None)


def _make_room(packaged: DictConfig, own: DictConfig) -> None:
    """Take out of the defaults what must not mix with a user's file.

    Half of one optimizer's arguments with half of another's would be neither; and a ``tokenizer`` section without
    ``chat_template`` means the tokenizer's own template.
    """
    from omegaconf import DictConfig, OmegaConf

    policy = own._get_node("policy")
    if not isinstance(policy, DictConfig) or policy._is_none() or policy._is_interpolation():
        return
    if "optimizer" in policy:
        OmegaConf.update(packaged, "policy.optimizer", None, merge=False)
    if "tokenizer" in policy:
        del packaged["policy"]["tokenizer"]["chat_template"]


def _load(path: Path) -> DictConfig:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    where = f"--config {path}"
    try:
        value = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError("the configuration file does not exist", where=where, fix="check the path") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "cannot be read"
        raise ConfigError(f"the file is no valid YAML: {problem}", where=place, fix="correct it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file cannot be read: {error}", where=where, fix="check it") from error
    if value is not None and not isinstance(value, dict):
        raise ConfigError("the configuration file holds no mapping of keys", where=str(path), fix="write key: value")
    try:
        return _as_mapping(OmegaConf.create(value or {}))
    except OmegaConfBaseException as error:
        reason = first_line(error)
        raise ConfigError(f"the file cannot be used: {reason}", where=where, fix="correct it") from error


def _parents(tree: DictConfig, path: Path) -> list[str]:
    from omegaconf import ListConfig

    parents = tree.pop(_PARENTS, None)
    names = [parents] if isinstance(parents, str) else list(parents) if isinstance(parents, ListConfig) else []
    if (parents is not None and not names) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            "defaults must be the name of a file or a list of them", where=str(path), fix="name the files to inherit"
        )
    return names


def _as_mapping(tree: DictConfig | ListConfig) -> DictConfig:
    """A tree that is known to be a mapping, for the type checker."""
    return cast("DictConfig", tree)
