"""The tutorial's layout of a configuration: ``model``, ``training`` and ``data`` become the canonical sections.

::

    model: {name: base, max_length: 512}
    training: {batch_size: 4, learning_rate: 2e-5, num_epochs: 3, warmup_steps: 100}
    data: {train_file: train.json, validation_file: val.json, max_seq_length: 512}

Canonical sections may stand beside them, and win.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any, Final

from skills_pipe.errors import ConfigError, did_you_mean

_MEANT: Final = {
    "model.name": "policy.model_name",
    "training.batch_size": "policy.train_global_batch_size",
    "training.learning_rate": "policy.lr",
    "training.num_epochs": "sft.max_num_epochs",
    "data.train_file": "data.train_data_path",
    "data.validation_file": "data.val_data_path",
}
_LENGTHS: Final = ("data.max_seq_length", "model.max_length")
"""The first one wins: it is about the data."""
_KNOWN: Final = (*_MEANT, *_LENGTHS, "training.warmup_steps")


def is_tutorial(tree: Mapping[str, Any]) -> bool:
    """Whether a configuration has sections that only the tutorial's layout has."""
    return "model" in tree or "training" in tree


def to_canonical(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings in the canonical layout; sections that the tutorial does not have stay as they are.

    Raises:
        ConfigError: an unknown key, or ``training.warmup_steps`` that are no number of steps.
    """
    rest: dict[str, Any] = copy.deepcopy(dict(tree))
    made: dict[str, Any] = {}
    for name, canonical in _MEANT.items():
        value = _take(rest, name)
        if value is not None:
            _set(made, canonical, value)
    if "train_data_path" in made.get("data", {}):
        # The rows are no prepared text: the model has to learn where an answer ends.
        made["data"] |= {"dataset_name": "alpaca", "add_bos": True, "add_eos": True}
    length = _length(rest)
    if length is not None:
        _set(made, "policy.max_total_sequence_length", length)
    scheduler = _warmup(_take(rest, "training.warmup_steps"))
    if scheduler is not None:
        _set(made, "policy.scheduler", scheduler)
    for section in ("model", "training"):
        _refuse_unknown(section, rest.pop(section, None))
    return _merge(made, rest)


def _refuse_unknown(section: str, left: Any) -> None:
    if left is None or left == {}:
        return
    if not isinstance(left, Mapping):
        raise ConfigError(f"{section} is no section of keys", where=section, fix="write keys and values below it")
    name = f"{section}.{next(iter(left))}"
    fix = did_you_mean(name, _KNOWN) or "use the keys of docs/configuration.md for everything else"
    raise ConfigError(f"unknown key {name}", where=name, fix=fix)


def _length(rest: dict[str, Any]) -> Any:
    of_data, of_model = (_take(rest, name) for name in _LENGTHS)
    if None not in (of_data, of_model) and of_data != of_model:
        warnings.warn(
            f"data.max_seq_length={of_data} and model.max_length={of_model} differ: the length of the data counts",
            stacklevel=2,
        )
    return of_model if of_data is None else of_data


def _warmup(steps: Any) -> dict[str, Any] | None:
    """The rate rises in equal steps, from its ``1 / steps`` part in the first step, and stays."""
    if steps is None:
        return None
    if not isinstance(steps, int) or steps < 0:
        raise ConfigError(f"{steps!r} is no number of steps", where="training.warmup_steps", fix="give 0 or more")
    if steps < 2:
        return None
    return {
        "name": "torch.optim.lr_scheduler.LinearLR",
        "kwargs": {"start_factor": 1 / steps, "total_iters": steps - 1},
    }


def _take(tree: dict[str, Any], dotted: str) -> Any:
    section, name = dotted.split(".")
    inside = tree.get(section)
    return inside.pop(name, None) if isinstance(inside, dict) else None


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    section, name = dotted.split(".")
    tree.setdefault(section, {})[name] = value


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in over.items():
        inside = merged.get(name)
        merged[name] = _merge(inside, value) if isinstance(inside, dict) and isinstance(value, dict) else value
    return merged
