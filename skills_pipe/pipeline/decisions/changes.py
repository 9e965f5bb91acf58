"""In what an output differs from the one that is wanted, in the words that users write."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from skills_pipe.artifacts.identity import Identity

_FLAGS: Final = {
    "adapter_only": "--adapter_only",
    "backend": "--backend",
    "benchmark": "--benchmarks",
    "config": "--config_name",
    "public": "--hub_public",
    "repo": "--push_to_hub",
    "server_type": "--server_type",
    "step": "--conversion_step",
    "steps": "--average_steps",
    "validation_data": "--validation_data",
}
"""Option of a stage -> the option of a command that it comes from, where its name is not that of a key."""

_HASH: Final = re.compile(r"([0-9a-f]{12})[0-9a-f]{52}")
_FSDP: Final = "policy.dtensor_cfg."
_KEPT: Final = frozenset(
    {
        *(f"{_FSDP}{section}" for section in ("lora_cfg", "quantization")),
        *(f"{_FSDP}lora_cfg.{key}" for key in ("enabled", "dim", "alpha", "use_rslora", "use_dora")),
        *(f"{_FSDP}lora_cfg.{key}" for key in ("match_all_linear", "target_modules", "exclude_modules")),
        *(f"{_FSDP}quantization.{key}" for key in ("load_in_4bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant")),
    }
)
"""Keys that a training keeps from its first checkpoint on: the trainer goes on under no others."""
_OPTIMIZER: Final = frozenset(
    {
        *("policy.optimizer", "policy.optimizer.name"),
        *(f"policy.optimizer.kwargs.{key}" for key in ("amsgrad", "centered", "momentum")),
    }
)
"""Keys on which it depends what an optimizer keeps."""
_KEPT_WITH_THE_DATA: Final = "policy.train_global_batch_size"
_INPUT: Final = "input "


def changes_between(before: Identity, after: Identity) -> tuple[str, ...]:
    """One line for each difference: ``--conversion_step: "last" -> "2"``, ``input /data/rows.jsonl: ...``.

    Hashes are cut to what a person can compare.
    """
    return tuple(_HASH.sub(r"\1", _spelled(line)) for line in before.changes(after))


def only_inputs_changed(changes: tuple[str, ...], paths: Iterable[str]) -> bool:
    """Whether something has changed, and nothing but the inputs at ``paths``."""
    known = tuple(f"{_INPUT}{path}: " for path in paths)
    return bool(changes) and all(change.startswith(known) for change in changes)


def checkpoints_still_fit(changes: tuple[str, ...]) -> bool:
    """Whether a training may go on from its checkpoints after such changes, if it is told to."""
    return not kept_by_checkpoints(changes)


def kept_by_checkpoints(changes: tuple[str, ...]) -> tuple[str, ...]:
    """Those changes under which the trainer goes on from no checkpoint, unless they say the same in other words."""
    same_data = not any(change.startswith(_INPUT) for change in changes)
    kept = _KEPT | {_KEPT_WITH_THE_DATA} if same_data else _KEPT
    return tuple(change for change in changes if _key(change) in kept)


def maybe_kept_by_checkpoints(changes: tuple[str, ...]) -> tuple[str, ...]:
    """Those changes under which it does, or not: that depends on what two optimizers have in common."""
    return tuple(change for change in changes if _key(change) in _OPTIMIZER)


def _key(change: str) -> str:
    return change.partition(": ")[0].lstrip("+~")


def _spelled(line: str) -> str:
    section, _, rest = line.partition(".")
    if section == "inputs":
        return _INPUT + rest
    name, colon, values = rest.partition(": ")
    # Keys of programs, ++key and ~key, are kept as they were written; what is unknown is the option of a stage.
    spelling = name if name.startswith(("+", "~")) else _FLAGS.get(name, f"option {name}")
    return f"{spelling}{colon}{values}"
