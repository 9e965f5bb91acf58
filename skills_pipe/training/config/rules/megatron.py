"""Keys of the megatron backend that somebody typed for a run of the other one, which does not read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from skills_pipe.training.config.grammar import Action, parse_overrides
from skills_pipe.training.config.read import known_keys
from skills_pipe.training.config.schema import TrainingConfig

_SECTION: Final = "policy.megatron_cfg"
_SWITCH: Final = f"{_SECTION}.enabled"
_INSTEAD: Final[Mapping[str, Sequence[str]]] = {
    "optimizer.lr": ("policy.lr", "policy.optimizer.kwargs.lr"),
    "optimizer.min_lr": ("policy.scheduler",),
    "optimizer.weight_decay": ("policy.weight_decay",),
    "optimizer.clip_grad": ("policy.max_grad_norm",),
    "optimizer": ("policy.optimizer",),
    "scheduler": ("policy.scheduler",),
    "peft": ("policy.dtensor_cfg.lora_cfg",),
    "env_vars": ("env_vars of the cluster",),
    "pipeline_model_parallel_size": (),
    "expert_tensor_parallel_size": (),
}
"""Keys and sections of the megatron backend -> what does the same on the other one."""
_ALIKE: Final = (("peft.", "policy.dtensor_cfg.lora_cfg."), ("", "policy."), ("", "policy.dtensor_cfg."))
"""Beginnings of keys, and those of keys that may have the same name on the other backend."""


def typed_for_megatron(config: TrainingConfig, overrides: Sequence[str]) -> list[str]:
    """A sentence for each key of the megatron backend that an override sets and a run without it does not read.

    What a file says of it is as it should be: files often describe both backends.
    """
    if config.policy.megatron_cfg.enabled:
        return []
    parsed, _ = parse_overrides(overrides)
    typed = [key for one in parsed if one.action is not Action.DELETE for key in _keys(one.key, one.value)]
    own = [key for key in dict.fromkeys(typed) if key.startswith(f"{_SECTION}.") and key != _SWITCH]
    return [f"{key}: the fsdp backend does not read it; {_advice(key.removeprefix(f'{_SECTION}.'))}" for key in own]


def _keys(key: str, value: Any) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield key
        return
    for name, inside in value.items():
        yield from _keys(f"{key}.{name}", inside)


def _advice(name: str) -> str:
    """What to do about a key, which is given by its name in the section."""
    alike = [ours + name.removeprefix(theirs) for theirs, ours in _ALIKE if name.startswith(theirs)]
    alike = [key for key in alike if key in known_keys()]
    near = [key for theirs, keys in _INSTEAD.items() if name.startswith(f"{theirs}.") for key in keys]
    instead = _INSTEAD[name] if name in _INSTEAD else (alike or near)[:1]
    return f"set {' or '.join(instead)}" if instead else "leave it out"
