"""Loads a configuration of processors, applies Hydra-style overrides and chooses the processors that run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skills_pipe.errors import ConfigError, OptionError, UserError, did_you_mean, first_line
from skills_pipe.training.prepare.build import build
from skills_pipe.training.prepare.processor import Processor

PACKAGED = Path(__file__).parent / "configs"

_PATTERN_KEYS = ("input_files", "preprocessed_dataset_files")
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Processors to run, each linked to the one before.

    Attributes:
        processors: what runs, in order.
        source: manifest that the first of them reads, None when it makes its entries itself.
        output: manifest that the last of them writes.
    """

    processors: list[Processor]
    source: str | None
    output: str


def load_pipeline(config_name: str, config_path: Path | None, overrides: Sequence[str]) -> Pipeline:
    """Compose a configuration and build its processors.

    Args:
        config_name: name of a YAML file, without the ending.
        config_path: folder of the file; the packaged ones when None.
        overrides: ``key=value``, ``+key=value``, ``++key=value``, ``~key``.

    Raises:
        UserError: everything that is wrong with the configuration, at once.
    """
    config = _compose(config_name, config_path or PACKAGED, overrides)
    problems: list[UserError] = list(config.problems)
    chosen = [(index, node) for index, node in config.selected() if node.get("should_run", True)]
    if not chosen:
        raise ConfigError("no processor is left to run", where="processors_to_run")
    processors = [build(node, where=f"processors.{index}", problems=problems) for index, node in chosen]
    _raise_all(problems)
    built = [processor for processor in processors if processor is not None]
    first, last = chosen[0], chosen[-1]
    output = last[1].get("output_manifest_file")
    if output is None:
        raise ConfigError(
            f"what processor {last[0]} makes would be lost",
            where=f"processors.{last[0]}",
            fix=f"set ++processors.{last[0]}.output_manifest_file=FILE",
        )
    for processor in built:
        processor.test()
    return Pipeline(processors=built, source=_source(config, *first), output=output)


def check_pipeline(config_name: str, config_path: Path | None, overrides: Sequence[str]) -> None:
    """Compose a configuration, and nothing else: no file is read, no processor built.

    Raises:
        UserError: everything that is wrong with its keys, at once.
    """
    config = _compose(config_name, config_path or PACKAGED, overrides)
    config.selected()
    _raise_all(list(config.problems))


@dataclass(frozen=True, kw_only=True)
class _Composed:
    """A configuration after overrides, its interpolations not resolved yet, and the keys it should not have."""

    tree: Any
    problems: list[ConfigError]

    def selected(self) -> list[tuple[int, dict[str, Any]]]:
        """Numbers and resolved nodes of the processors that ``processors_to_run`` names."""
        numbers = list(range(len(self.tree.processors)))
        return [(number, self.node(number)) for number in select(numbers, self.tree.get("processors_to_run", "all"))]

    def node(self, number: int) -> dict[str, Any]:
        """A processor's node with its interpolations resolved."""
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            node = OmegaConf.to_container(self.tree.processors[number], resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            message = first_line(error)
            unset = re.search(r"(?:issing mandatory value:?|nterpolation key) '?([\w.]+)'?", message)
            if unset is None:
                raise ConfigError(message, where=f"processors.{number}") from error
            key = unset.group(1)
            raise ConfigError(f"{key} is not set", where=f"processors.{number}", fix=f"add ++{key}=VALUE") from error
        if not isinstance(node, dict):
            raise ConfigError("a processor is a mapping with _target_", where=f"processors.{number}")
        return {str(key): value for key, value in node.items()}


def select(items: list[int], choice: str | int) -> list[int]:
    """What ``processors_to_run`` chooses: ``all``, a Python slice such as ``2:``, or one number.

    Raises:
        ConfigError: it is none of these, or points outside.
    """
    text = str(choice).strip()
    try:
        if text == "all":
            return items
        if ":" in text:
            return items[slice(*[int(part) if part.strip() else None for part in text.split(":")])]
        return [items[int(text)]]
    except (ValueError, TypeError, IndexError) as error:
        raise ConfigError(
            f"{text!r} chooses none of the {len(items)} processors",
            where="processors_to_run",
            fix="use all, a number such as -1, or a slice such as 2:",
        ) from error


def _compose(name: str, folder: Path, overrides: Sequence[str]) -> _Composed:
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    name = name.removesuffix(".yaml")
    if not (folder / f"{name}.yaml").is_file():
        names = sorted(path.stem for path in folder.glob("*.yaml"))
        fix = did_you_mean(name, names) or f"use {', '.join(names) or 'a folder with .yaml files'}"
        raise OptionError(f"there is no configuration {name!r} in {folder}", where="--config-name", fix=fix)
    _register_resolvers()
    try:
        with initialize_config_dir(version_base=None, config_dir=str(folder.resolve())):
            base = compose(name)
            tree = compose(name, overrides=[_quote_patterns(override) for override in overrides])
    except (HydraException, OmegaConfBaseException) as error:
        unknown = re.search(r"Could not override '([^']+)'", str(error))
        if unknown:
            known = [".".join(path) for path in _paths(_plain(base)) if path[0] != "processors"]
            fix = did_you_mean(unknown.group(1), known) or "look at the spelling"
            raise ConfigError(f"unknown key {unknown.group(1)!r}", where="override", fix=fix) from error
        raise OptionError(" ".join(str(error).split()), where="override") from error
    if not OmegaConf.is_list(tree.get("processors")):
        raise ConfigError("the configuration has no list 'processors'", where=str(folder / f"{name}.yaml"))
    return _Composed(tree=tree, problems=_unknown_keys(base, tree))


def _unknown_keys(base: Any, tree: Any) -> list[ConfigError]:
    """Keys that overrides added and nothing refers to."""
    from omegaconf import OmegaConf

    before, after = _plain(base), _plain(tree)
    referenced = set(_REFERENCE.findall(OmegaConf.to_yaml(tree, resolve=False)))
    known = [".".join(path) for path in _paths(before) if path[0] != "processors"]
    problems = []
    for path in _paths(after):
        key = ".".join(path)
        parent_is_known = len(path) == 1 or _is_allowed(before, path[:-1])
        if path[0] == "processors" or key in referenced or _is_allowed(before, path) or not parent_is_known:
            continue
        problems.append(
            ConfigError(
                f"unknown key {key!r}", where="override", fix=did_you_mean(key, known) or "look at the spelling"
            )
        )
    return problems


def _plain(tree: Any) -> dict[Any, Any]:
    """A configuration as plain values, interpolations as they were written."""
    from omegaconf import OmegaConf

    value = OmegaConf.to_container(tree, resolve=False)
    return value if isinstance(value, dict) else {}


def _paths(tree: dict[Any, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    paths = []
    for key, value in tree.items():
        path = (*prefix, str(key))
        paths.append(path)
        if isinstance(value, dict):
            paths += _paths(value, path)
    return paths


def _is_allowed(base: dict[Any, Any], path: tuple[str, ...]) -> bool:
    """Whether a key is in the configuration, or below one that is null there and so takes any mapping."""
    node: Any = base
    for part in path:
        if node is None:
            return True
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def _quote_patterns(override: str) -> str:
    """Quote lists of files, so that their commas are not taken for a sweep over values."""
    key, found, value = override.partition("=")
    if found and key.lstrip("+") in _PATTERN_KEYS and value and value[0] not in "'\"[":
        return f"{key}='" + value.replace("'", "\\'") + "'"
    return override


def _source(config: _Composed, number: int, node: dict[str, Any]) -> str | None:
    """Manifest that the first processor of a run reads: its own, or what the processor before it wrote."""
    own: str | None = node.get("input_manifest_file")
    if own is not None or number == 0:
        return own
    source: str | None = config.node(number - 1).get("output_manifest_file")
    if source is None:
        raise ConfigError(
            f"the run starts at processor {number}, and nothing says what it reads",
            where="processors_to_run",
            fix=f"set ++processors.{number}.input_manifest_file=FILE",
        )
    return source


def _register_resolvers() -> None:
    """The resolvers that configurations for the Speech Data Processor toolkit may use."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("subfield", lambda node, key: node[key], replace=True)
    OmegaConf.register_new_resolver("not", lambda value: not value, replace=True)
    OmegaConf.register_new_resolver("equal", lambda one, other: one == other, replace=True)


def _raise_all(problems: Sequence[UserError]) -> None:
    if len(problems) == 1:
        raise problems[0]
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise ConfigError(f"{len(problems)} problems in the configuration:{lines}")
