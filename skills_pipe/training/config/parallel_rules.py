"""What must hold between the keys that say how ranks share the work, and between them and the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.estimate import ModelShape
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.parallel import TENSOR_PARALLEL_FAMILIES
from skills_pipe.training.config.schema import PolicyConfig, TrainingConfig

_TENSOR = "policy.tensor_model_parallel_size"

_BOTH = {
    "tensor_model_parallel_size": ("tensor_parallel_size", "tensor_model_parallel_size"),
    "context_parallel_size": ("context_parallel_size", "context_parallel_size"),
    "expert_model_parallel_size": ("expert_parallel_size", "expert_model_parallel_size"),
    "sequence_parallel": ("sequence_parallel", "sequence_parallel"),
}
"""Keys of ``policy`` that both backends follow -> their names in ``dtensor_cfg`` and in ``megatron_cfg``."""


def broken_parallel_rules(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    """Every rule about parallelism that a canonical configuration breaks."""
    policy = config.policy
    yield from _without_effect(policy, origins)
    if policy.dtensor_cfg.enabled and policy.dtensor_cfg.tensor_parallel_size > 1:
        yield from _tensor(policy, origins)


def parallel_without_effect(policy: PolicyConfig) -> list[tuple[bool, str]]:
    """Settings of parallelism that change nothing: whether each is set, and a sentence about it."""
    fsdp = policy.dtensor_cfg
    alone = fsdp.enabled and fsdp.sequence_parallel and fsdp.tensor_parallel_size == 1
    return [(alone, "policy.dtensor_cfg.sequence_parallel: without tensor parallelism nobody shares a sequence")]


def unshareable(model: Mapping[str, Any], *, tensor: int) -> list[ConfigError]:
    """Why the layers of a model cannot be shared by so many ranks on the fsdp backend; empty when they can.

    Args:
        model: its ``config.json``.
        tensor: ranks that share each layer.
    """
    family, shape = model.get("model_type"), ModelShape.of(model)
    if tensor > 1 and (family not in TENSOR_PARALLEL_FAMILIES or shape is None):
        known = ", ".join(TENSOR_PARALLEL_FAMILIES)
        return [
            ConfigError(
                f"tensor parallelism is proven exact for {known}, not for {family}",
                where=_TENSOR,
                fix="set it to 1: the weights are sharded over all ranks anyway",
            )
        ]
    return indivisible(shape, tensor=tensor) if shape is not None else []


def indivisible(shape: ModelShape, *, tensor: int) -> list[ConfigError]:
    """What of a model cannot be divided over so many ranks on the fsdp backend."""
    counts = {
        "attention heads": shape.heads,
        "key-value heads": shape.kv_heads,
        "neurons of the MLP": shape.inner,
        "words of the vocabulary": shape.vocabulary,
    }
    return [
        ConfigError(
            f"the {count} {name} of the model cannot be divided over {tensor} ranks",
            where=_TENSOR,
            fix=f"choose a divisor of {count}",
        )
        for name, count in counts.items()
        if count % tensor
    ]


def _without_effect(policy: PolicyConfig, origins: Origins) -> Iterator[ConfigError]:
    """``policy.*`` reaches a backend only through an interpolation, which a file's own section may lack."""
    megatron = policy.megatron_cfg.enabled
    section, backend = ("megatron_cfg", policy.megatron_cfg) if megatron else ("dtensor_cfg", policy.dtensor_cfg)
    for key, names in _BOTH.items():
        name = names[1] if megatron else names[0]
        wanted, used = getattr(policy, key), getattr(backend, name)
        if wanted != used and origins.overrides_later(f"policy.{key}", f"policy.{section}.{name}"):
            yield ConfigError(
                f"policy.{key} has no effect: policy.{section}.{name} is {used}",
                where=origins.where(f"policy.{key}"),
                fix=f"set policy.{section}.{name} instead",
            )


def _tensor(policy: PolicyConfig, origins: Origins) -> Iterator[ConfigError]:
    if policy.neftune_noise_alpha is not None:
        yield ConfigError(
            "policy.neftune_noise_alpha: ranks that share a layer would each add noise of their own",
            where=origins.where("policy.neftune_noise_alpha"),
            fix=f"leave it out, or set {_TENSOR}=1",
        )
