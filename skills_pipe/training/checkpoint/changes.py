"""What a job trains with otherwise than the job before it did: keys of the configuration, data, base model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from skills_pipe.training.checkpoint.layout import StepFolder

if TYPE_CHECKING:
    from skills_pipe.training.checkpoint.resume import Found
    from skills_pipe.training.checkpoint.state import RunDescription

Changes = Mapping[str, Mapping[str, Any]]
"""Dotted key -> its value ``before`` and ``now``; None: it was not there, or null."""

DATA, BASE_MODEL = "data", "base_model"
"""Fingerprints, under the names that they have in ``lineage.json``; no key of a configuration is called so."""

_NOT_OF_RESULT = ("logger", "cluster", "checkpointing")
"""Sections that say where a run is logged and kept, and on what machines it runs."""

_VARIABLES = "env_vars"


def changes_since(found: Found, run: RunDescription) -> Changes:
    """What ``run`` has otherwise than the job that wrote a checkpoint."""
    step = StepFolder(found.path)
    position = json.loads(step.position.read_text())
    before = {BASE_MODEL: found.manifest.facts.get("model"), DATA: position["fingerprint"]}
    now = {BASE_MODEL: run.model_fingerprint, DATA: run.data_fingerprint}
    return _between(before | settings_of(step.config.read_text(encoding="utf-8")), now | settings_of(run.config_yaml))


def settings_of(config_yaml: str) -> dict[str, Any]:
    """Dotted key -> value of a configuration, without sections that decide nothing; of variables the names alone."""
    tree = yaml.safe_load(config_yaml) or {}
    return dict(_leaves({name: section for name, section in tree.items() if name not in _NOT_OF_RESULT}))


def _between(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    keys = dict.fromkeys([*before, *now])
    return {key: {"before": before.get(key), "now": now.get(key)} for key in keys if before.get(key) != now.get(key)}


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value by its dotted key; lists are values, but for those of sections, as the data sets.

    Of a section that is switched off no more is told than that.
    """
    if isinstance(value, dict) and value.get("enabled") is False:
        value = {"enabled": False}
    if key.endswith(f".{_VARIABLES}"):
        value = sorted(value or ())
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        parts = {str(index): item for index, item in enumerate(value)}.items()
    else:
        yield key, value
        return
    for name, part in parts:
        yield from _leaves(part, f"{key}.{name}" if key else str(name))
