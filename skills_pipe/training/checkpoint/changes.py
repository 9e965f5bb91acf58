"""What a job trains with otherwise than the job before it did: keys of the configuration, data, base model."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from skills_pipe.artifacts.result_keys import NOT_OF_RESULT
from skills_pipe.training.checkpoint.layout import StepFolder
from skills_pipe.training.config.objects import RATE
from skills_pipe.training.config.without_secrets import without_secrets

if TYPE_CHECKING:
    from skills_pipe.training.checkpoint.resume import Found
    from skills_pipe.training.checkpoint.state import RunDescription

Changes = Mapping[str, Mapping[str, Any]]
"""Dotted key -> its value ``before`` and ``now``; None: it was not there, or null.

Of an argument that an optimizer or a schedule is not given it is said that the default of the class holds.
"""

DATA, BASE_MODEL = "data", "base_model"
"""Fingerprints, under the names that they have in ``lineage.json``; no key of a configuration is called so."""

_KEPT = "checkpointing."
"""Keys that say what is kept of a training, and where."""

_TOLD = 8
"""Changes that one line has room for."""

_WIDTH = 60
"""Characters of a value that it has room for."""

_ITEM = re.compile(r".*?\.\d+(?=\.)")
"""The key of a section in a list of them, as of a data set, at the start of a key in it."""

_ARGUMENT = re.compile(r"(policy\.(?:optimizer|scheduler(?:\.\d+)?))\.kwargs\.([^.]+)")
"""The key of an argument, with the section of its class."""

_NAMES = ("data_path", "dataset_name", "path", "name")
"""Keys by which such a section is told."""


def changes_since(found: Found, run: RunDescription) -> Changes:
    """What ``run`` has otherwise than the job that wrote a checkpoint."""
    step = StepFolder(found.path)
    position = json.loads(step.position.read_text())
    before = {BASE_MODEL: found.manifest.facts.get("model"), DATA: position["fingerprint"]}
    now = {BASE_MODEL: run.model_fingerprint, DATA: run.data_fingerprint}
    return _between(before | settings_of(step.config.read_text(encoding="utf-8")), now | settings_of(run.config_yaml))


def in_one_line(changes: Mapping[str, Mapping[str, Any]], *, since: str) -> str | None:
    """The keys that changed since a checkpoint, for a note; None where none did."""
    pairs = [
        f"{key} {_plain(values['before'])} -> {_plain(values['now'])}"
        for key, values in changes.items()
        if key not in (DATA, BASE_MODEL)
    ]
    if not pairs:
        return None
    more = f"; and {len(pairs) - _TOLD} more, in lineage.json" if len(pairs) > _TOLD else ""
    return f"changed since {since}, and going on with it: {'; '.join(pairs[:_TOLD])}{more}"


def settings_of(config_yaml: str) -> dict[str, Any]:
    """Dotted key -> value of those keys of a configuration that decide what is trained, without secrets."""
    leaves = _leaves(without_secrets(yaml.safe_load(config_yaml) or {}))
    return {key: value for key, value in leaves if not key.startswith((*NOT_OF_RESULT, _KEPT))}


def _between(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    before, now = _with_whole_items(before, now), _with_whole_items(now, before)
    keys = dict.fromkeys([*before, *now])
    changed = [key for key in keys if before.get(key) != now.get(key)]
    return {key: {"before": _told(before, key), "now": _told(now, key)} for key in changed}


def _told(settings: Mapping[str, Any], key: str) -> Any:
    """The value of ``key``; with a class that is there and is not given it, what then counts."""
    match, value = _ARGUMENT.fullmatch(key), settings.get(key)
    of = settings.get(f"{match[1]}.name") if match is not None else None
    if match is None or of is None or value is not None or (key in settings and match[2] != RATE):
        return value
    return f"the default of {of.rpartition('.')[2]}"


def _with_whole_items(settings: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """``settings``, with one value in the place of all keys of a section in a list that ``other`` does not have.

    An empty list is left out where the other one has sections in it.
    """
    there = {match.group() for key in other if (match := _ITEM.match(key))}
    told: dict[str, Any] = {}
    for key, value in settings.items():
        match = _ITEM.match(key)
        if match is None or match.group() in there:
            if value != [] or not any(item.startswith(f"{key}.") for item in there):
                told[key] = value
        elif match.group() not in told:
            names = (settings.get(f"{match.group()}.{name}") for name in _NAMES)
            told[match.group()] = next((name for name in names if name), True)
    return told


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return textwrap.shorten(str(value), _WIDTH, placeholder="...")


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value by its dotted key; lists are values, but for those of sections, as the data sets.

    Of a section that is switched off no more is told than that.
    """
    if isinstance(value, dict) and value.get("enabled") is False:
        value = {"enabled": False}
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        parts = {str(index): item for index, item in enumerate(value)}.items()
    else:
        yield key, value
        return
    for name, part in parts:
        yield from _leaves(part, f"{key}.{name}" if key else str(name))
