"""In what an output differs from the one that is wanted, in the words that users write."""

from __future__ import annotations

import re
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
}
"""Option of a stage -> the option of a command that it comes from, where its name is not that of a key."""

_HASH: Final = re.compile(r"([0-9a-f]{12})[0-9a-f]{52}")
_OF_STAGE: Final = "stage "
_OF_CHECKPOINTS: Final = (
    "++policy.train_global_batch_size",
    "++policy.dtensor_cfg.lora_cfg.",
    "++policy.dtensor_cfg.quantization.",
    "++policy.megatron_cfg.peft.",
)
"""How keys begin that a training keeps from its first checkpoint on: the trainer goes on under no others."""


def changes_between(before: Identity, after: Identity) -> tuple[str, ...]:
    """One line for each difference: ``--conversion_step: "last" -> "2"``, ``input /data/rows.jsonl: ...``.

    Hashes are cut to what a person can compare.
    """
    return tuple(_HASH.sub(r"\1", _spelled(line)) for line in before.changes(after))


def follows_from_upstream(changes: tuple[str, ...]) -> bool:
    """Whether nothing has changed but the stages before."""
    return bool(changes) and all(change.startswith(_OF_STAGE) for change in changes)


def checkpoints_still_fit(changes: tuple[str, ...]) -> bool:
    """Whether a training may go on from its checkpoints after such changes, if it is told to."""
    return not any(change.startswith(_OF_CHECKPOINTS) for change in changes)


def _spelled(line: str) -> str:
    section, _, rest = line.partition(".")
    if section == "upstream":
        return _OF_STAGE + rest
    if section == "inputs":
        return f"input {rest}"
    name, colon, values = rest.partition(": ")
    # Keys of programs, ++key and ~key, are kept as they were written; what is unknown is the option of a stage.
    spelling = name if name.startswith(("+", "~")) else _FLAGS.get(name, f"option {name}")
    return f"{spelling}{colon}{values}"
