"""What must hold between the kernels that are asked for by name and the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.schema import TrainingConfig

ATTENTION_KEY = "policy.dtensor_cfg.attention_kernel"

_BY_NAME = ("flash_attn", "varlen_attn")


def broken_kernel_rules(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    """Every rule about kernels that a canonical configuration breaks."""
    policy, kernel = config.policy, config.policy.dtensor_cfg.attention_kernel
    if policy.dtensor_cfg.enabled and kernel in _BY_NAME and policy.precision == "float32":
        yield ConfigError(
            f"{ATTENTION_KEY}={kernel} computes in half precision, and policy.precision is float32",
            where=origins.where(ATTENTION_KEY),
            fix="set it to auto, or policy.precision=bfloat16",
        )


def uncomputable(model: Mapping[str, Any], kernel: str) -> list[ConfigError]:
    """Why a kernel for attention that is asked for by name computes no layer of a model.

    Args:
        model: its ``config.json``.
        kernel: ``policy.dtensor_cfg.attention_kernel``.
    """
    family = model.get("model_type")
    if kernel not in _BY_NAME:
        return []
    if family == "gpt_oss":
        lacking = "knows no sinks"
    elif family == "gemma2" and kernel == "varlen_attn":
        lacking = "caps no scores"
    else:
        return []
    what = f"{ATTENTION_KEY}={kernel} {lacking}, which models of the family {family} have"
    return [ConfigError(what, where=ATTENTION_KEY, fix=f"set {ATTENTION_KEY}=auto")]
