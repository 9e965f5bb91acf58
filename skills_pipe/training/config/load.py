"""The way from files and overrides to a configuration: load, override, resolve, check, bring into one layout."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.arguments import drop_arguments, named_classes
from skills_pipe.training.config.files import load_layers
from skills_pipe.training.config.grammar import Override, parse_overrides
from skills_pipe.training.config.layouts import Canonical
from skills_pipe.training.config.origins import PACKAGED, Origins
from skills_pipe.training.config.overrides import apply_overrides
from skills_pipe.training.config.quick import resolve_quickly
from skills_pipe.training.config.rate import give_rate
from skills_pipe.training.config.read import Reader, known_keys
from skills_pipe.training.config.resolvers import Unresolved, resolve
from skills_pipe.training.config.rules.broken import broken_rules
from skills_pipe.training.config.rules.unsupported import unsupported
from skills_pipe.training.config.schema import TrainingConfig


class ConfigWarning(UserWarning):
    """Something in the configuration that is ignored, as the user asked with ``--strict=false``."""


class ConfigErrors(ConfigError):
    """Several problems of one configuration.

    Attributes:
        problems: the problems, one line each.
    """

    def __init__(self, problems: Sequence[ConfigError]) -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(f"the training configuration has {len(problems)} problems:{lines}")


def load_config(
    source: Path | Mapping[str, Any] | None = None, overrides: Sequence[str] = (), *, strict: bool = True
) -> TrainingConfig:
    """The configuration of a training run, complete, checked and in one layout.

    Args:
        source: YAML file, or the sections themselves, laid over the packaged defaults; None: the defaults alone.
        overrides: Hydra-style overrides, a later one wins.
        strict: whether unknown keys are errors; else they are ignored with a :class:`ConfigWarning` each.

    Raises:
        ConfigError: one problem; several are raised together as :class:`ConfigErrors`.
    """
    config, found = _assemble(source, overrides)
    problems = [*(found.unknown if strict else ()), *found.wrong, *found.missing]
    if not strict:
        for problem in found.unknown:
            warnings.warn(ConfigWarning(f"ignored: {problem}"), stacklevel=2)
    if problems:
        raise problems[0] if len(problems) == 1 else ConfigErrors(problems)
    if config is None:
        raise RuntimeError("a configuration without problems could not be read")
    return config


def check_overrides(overrides: Sequence[str], base: Path | None = None) -> list[ConfigError]:
    """What is wrong with overrides of the configuration file ``base``, before anything runs.

    Keys that are still to be set, such as ``policy.model_name``, are no problem here.
    """
    try:
        _, found = _assemble(base, overrides)
    except ConfigError as error:
        return [error]
    return [*found.unknown, *found.wrong]


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Problems by kind, collected on the way."""

    unknown: list[ConfigError] = field(default_factory=list)
    wrong: list[ConfigError] = field(default_factory=list)
    missing: list[ConfigError] = field(default_factory=list)


def _assemble(source: Path | Mapping[str, Any] | None, texts: Sequence[str]) -> tuple[TrainingConfig | None, _Found]:
    found = _Found()
    overrides, unreadable = parse_overrides(texts)
    found.wrong.extend(unreadable)
    origins, plain, unresolved = _resolved(source, overrides, found)
    reader = Reader(origins, unresolved.derived)
    written = reader.section(TrainingConfig, plain)
    found.unknown.extend(reader.unknown)
    found.missing.extend(unresolved.missing)
    found.wrong.extend(unresolved.failed + reader.problems)
    if not (found.wrong or found.missing):
        found.wrong.extend(unresolved.followed + reader.followed)
    if written is None or reader.incomplete:
        return None, found
    canonical = Canonical(origins)
    config = canonical.config(written)
    found.wrong.extend(canonical.problems)
    found.missing.extend(canonical.missing)
    found.wrong.extend(broken_rules(config, origins))
    found.wrong.extend(unsupported(config, origins))
    return config, found


def _resolved(
    source: Path | Mapping[str, Any] | None, overrides: Sequence[Override], found: _Found
) -> tuple[Origins, dict[str, Any], Unresolved]:
    """Where keys come from, the plain tree, and what in it has no value; ``found`` gets what could not be applied."""
    if source is None:
        origins = Origins(files=(PACKAGED,), overrides=overrides)
        quick = resolve_quickly(overrides, origins)
        if quick is not None:
            return origins, *quick
    layers = load_layers(source)
    given = source if isinstance(source, Mapping) else {}
    origins = Origins(files=layers.files, overrides=overrides, given=given)
    named = named_classes(layers.tree, overrides)
    applied = apply_overrides(layers.tree, overrides, known_keys())
    drop_arguments(layers.tree, named, overrides, origins)
    give_rate(layers.tree)
    found.unknown.extend(applied.unknown)
    found.wrong.extend(applied.wrong)
    return origins, *resolve(layers.tree, origins)
