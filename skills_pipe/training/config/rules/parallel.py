"""What must hold between the keys that say how ranks share the work, and between them and the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.estimate import ModelShape
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.parallel import (
    CONTEXT_PARALLEL_FAMILIES,
    EXPERT_PARALLEL_FAMILIES,
    TENSOR_PARALLEL_FAMILIES,
    Layout,
)
from skills_pipe.training.config.schema import PolicyConfig, TrainingConfig

_TENSOR = "policy.tensor_model_parallel_size"
_CONTEXT = "policy.context_parallel_size"
_EXPERT = "policy.expert_model_parallel_size"

_BOTH: Mapping[str, tuple[str | None, str]] = {
    "tensor_model_parallel_size": ("tensor_parallel_size", "tensor_model_parallel_size"),
    "context_parallel_size": ("context_parallel_size", "context_parallel_size"),
    "expert_model_parallel_size": ("expert_parallel_size", "expert_model_parallel_size"),
    "sequence_parallel": ("sequence_parallel", "sequence_parallel"),
    "pipeline_model_parallel_size": (None, "pipeline_model_parallel_size"),
    "expert_tensor_parallel_size": (None, "expert_tensor_parallel_size"),
}
"""Keys of ``policy`` that backends follow -> their names in ``dtensor_cfg``, if there, and in ``megatron_cfg``."""

_BY_FILE = 1
"""The rank of what a file sets; that of an override is higher."""


def broken_parallel_rules(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    """Every rule about parallelism that a canonical configuration breaks."""
    policy = config.policy
    yield from _without_effect(policy, origins)
    if policy.dtensor_cfg.enabled:
        yield from _noise(policy, origins)
        yield from _loss_kernel(policy, origins)


def parallel_without_effect(policy: PolicyConfig) -> list[tuple[bool, str]]:
    """Settings of parallelism that change nothing: whether each is set, and a sentence about it."""
    fsdp = policy.dtensor_cfg
    alone = fsdp.enabled and fsdp.sequence_parallel and fsdp.tensor_parallel_size == 1
    return [(alone, "policy.dtensor_cfg.sequence_parallel: without tensor parallelism nobody shares a sequence")]


def unshareable(model: Mapping[str, Any], layout: Layout) -> list[ConfigError]:
    """Why ranks cannot share the work on a model so on the fsdp backend; empty when they can.

    Args:
        model: its ``config.json``.
        layout: how they are to share it.
    """
    # Qwen's files say the former, those that transformers writes the latter.
    shape, experts = ModelShape.of(model), model.get("num_experts", model.get("num_local_experts"))
    problems = unproven(model.get("model_type"), layout)
    if not problems and shape is not None:
        problems = indivisible(shape, tensor=layout.tensor)
    if not problems and layout.tensor > 1:
        problems = _dropping(model)
    if not problems and (layout.expert > 1 or (shape is not None and shape.mixtures)):
        problems = _indivisible_experts(experts, layout)
    return problems


def unproven(family: str | None, layout: Layout) -> list[ConfigError]:
    """Which kinds of parallelism are asked for that are not proven exact for a family of models on the fsdp backend.

    Args:
        family: ``model_type`` of its ``config.json``.
        layout: how ranks are to share the work.
    """
    kinds = (
        ("tensor", layout.tensor, TENSOR_PARALLEL_FAMILIES, _TENSOR),
        ("context", layout.context, CONTEXT_PARALLEL_FAMILIES, _CONTEXT),
        ("expert", layout.expert, EXPERT_PARALLEL_FAMILIES, _EXPERT),
    )
    return [
        ConfigError(
            f"{kind} parallelism is proven exact for {', '.join(families)}, not for {family}",
            where=key,
            fix="set it to 1: the weights are sharded over all ranks anyway",
        )
        for kind, size, families, key in kinds
        if size > 1 and family not in families
    ]


def indivisible(shape: ModelShape, *, tensor: int) -> list[ConfigError]:
    """What of a model cannot be divided over so many ranks on the fsdp backend."""
    counts = {
        "attention heads": shape.heads,
        "key-value heads": shape.kv_heads,
        # Experts stay whole.
        "neurons of the MLP": tensor if len(shape.mixtures) == shape.layers else shape.inner,
        "words of the vocabulary": shape.vocabulary,
    }
    return [
        ConfigError(
            f"the {count} {name} of the model cannot be divided over {tensor} ranks",
            where=_TENSOR,
            fix=f"choose a divisor of {count}",
        )
        if count > 1
        else ConfigError(
            f"the model has only one of its {name}, which {tensor} ranks cannot share",
            where=_TENSOR,
            fix="set it to 1: the weights are sharded over all ranks anyway",
        )
        for name, count in counts.items()
        if count % tensor
    ]


def _dropping(model: Mapping[str, Any]) -> list[ConfigError]:
    if not model.get("resid_pdrop"):
        return []
    what = "ranks that share a layer would each drop out other values of what all of them hold (resid_pdrop)"
    return [ConfigError(what, where=_TENSOR, fix="set policy.hf_config_overrides.resid_pdrop=0, or the size to 1")]


def _indivisible_experts(experts: int | None, layout: Layout) -> list[ConfigError]:
    """Ranks that share each layer share its experts too, each of them those of the ranks that exchange tokens."""
    ranks, where = layout.expert * layout.tensor, _EXPERT if layout.expert > 1 else _TENSOR
    if not experts:
        what = f"the model has no experts that {ranks} ranks could share: its config.json has no num_experts"
        return [ConfigError(what, where=where, fix="set it to 1, or see to the files of the model")]
    if experts % ranks:
        what = f"the {experts} experts of the model cannot be divided over {ranks} ranks"
        both = f": {_EXPERT} times {_TENSOR}" if 1 < layout.expert < ranks else ""
        return [ConfigError(what, where=where, fix=f"choose a divisor of {experts}{both}")]
    return []


def _without_effect(policy: PolicyConfig, origins: Origins) -> Iterator[ConfigError]:
    """``policy.*`` reaches a backend only through an interpolation, which what sets the backend's own key replaces.

    An override may replace what a file says of the other key; two overrides, or two files, contradict each other.
    """
    megatron = policy.megatron_cfg.enabled
    section, backend = ("megatron_cfg", policy.megatron_cfg) if megatron else ("dtensor_cfg", policy.dtensor_cfg)
    for key, names in _BOTH.items():
        name = names[1] if megatron else names[0]
        if name is None or getattr(policy, key) == getattr(backend, name):
            continue
        general, own = f"policy.{key}", f"policy.{section}.{name}"
        ranks = origins.rank(general), origins.rank(own)
        if min(ranks) > _BY_FILE or ranks == (_BY_FILE, _BY_FILE):
            yield ConfigError(
                f"{general}={_written(getattr(policy, key))} and {own}={_written(getattr(backend, name))} "
                "contradict each other",
                where=f"{origins.where(general)} and {origins.where(own)}",
                fix="set one of them",
            )
        elif origins.overrides_later(general, own):
            yield ConfigError(
                f"{general} has no effect: {own} is {getattr(backend, name)}",
                where=origins.where(general),
                fix=f"set {own} instead",
            )


def _written(value: bool | int) -> str:
    return str(value).lower()


def _loss_kernel(policy: PolicyConfig, origins: Origins) -> Iterator[ConfigError]:
    fsdp = policy.dtensor_cfg
    if fsdp.loss_kernel == "liger" and fsdp.tensor_parallel_size > 1:
        yield ConfigError(
            "policy.dtensor_cfg.loss_kernel=liger needs all words of the vocabulary, which tensor parallel ranks share",
            where=origins.where("policy.dtensor_cfg.loss_kernel"),
            fix=f"set it to auto, or {_TENSOR}=1",
        )


def _noise(policy: PolicyConfig, origins: Origins) -> Iterator[ConfigError]:
    """Noise on embeddings is drawn by each rank for itself, and for whole rows."""
    fsdp = policy.dtensor_cfg
    kinds = ((fsdp.tensor_parallel_size, "layer", _TENSOR), (fsdp.context_parallel_size, "sequence", _CONTEXT))
    for size, shared, key in kinds:
        if policy.neftune_noise_alpha is not None and size > 1:
            yield ConfigError(
                f"policy.neftune_noise_alpha: ranks that share a {shared} would each add noise of their own",
                where=origins.where("policy.neftune_noise_alpha"),
                fix=f"leave it out, or set {key}=1",
            )
