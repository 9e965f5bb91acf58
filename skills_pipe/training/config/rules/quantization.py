"""What must hold between the keys of weights in 4 bit and the others, and between them and the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.adapters import FSDP_KEY
from skills_pipe.training.config.estimate import ModelShape
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.quantization import QUANTIZATION_KEY, uneven
from skills_pipe.training.config.schema import PolicyConfig, TrainingConfig


def broken_quantization_rules(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    """Every rule about weights in 4 bit that a canonical configuration breaks."""
    for key, what, fix in _broken(config.policy):
        yield ConfigError(what, where=origins.where(key), fix=fix)


def unquantizable(model: Mapping[str, Any]) -> list[ConfigError]:
    """Why the linear layers of a model cannot be kept in 4 bit; empty when they can.

    Args:
        model: its ``config.json``.
    """
    shape = ModelShape.of(model)
    if shape is None:
        return []
    if shape.mixtures:
        return [
            ConfigError(
                "the experts of a mixture are one stack of weights, no linear layers, and would not get smaller",
                where=f"{QUANTIZATION_KEY}.load_in_4bit",
                fix="set it to false, or use a model without experts",
            )
        ]
    return uneven(shape.linear_layers.items())


def _broken(policy: PolicyConfig) -> Iterator[tuple[str, str, str]]:
    section = policy.dtensor_cfg.quantization
    if not section.load_in_4bit:
        return
    switch = f"{QUANTIZATION_KEY}.load_in_4bit"
    if not policy.dtensor_cfg.enabled:
        yield switch, f"{switch} is for the fsdp backend, which is off", "set it to false"
    elif not policy.dtensor_cfg.lora_cfg.enabled:
        yield (
            switch,
            f"{switch} keeps weights that are not trained, and all weights are trained",
            f"set {FSDP_KEY}.enabled=true",
        )
    if max(policy.dtensor_cfg.tensor_parallel_size, policy.dtensor_cfg.expert_parallel_size) > 1:
        yield (
            switch,
            f"{switch}: a base in 4 bit is not proven where ranks share layers or experts",
            "set it to false, or the sizes of tensor and expert parallelism to 1",
        )
    wanted = section.bnb_4bit_compute_dtype
    if wanted is not None and wanted != policy.precision:
        key = f"{QUANTIZATION_KEY}.bnb_4bit_compute_dtype"
        yield (
            key,
            f"{key} is {wanted}, and policy.precision, in which everything computes, is {policy.precision}",
            "leave it out, or make them equal",
        )
