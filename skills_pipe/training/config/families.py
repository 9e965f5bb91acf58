"""Which models are trained, by their ``config.json``, and why others are not; without torch, for the launcher too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skills_pipe.errors import ConfigError

ARCHITECTURES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi3",
    "gpt_oss",
    "gpt2",
)
"""``model_type`` of the families whose packed training is proven equal to each document alone."""

_NAME = "policy.model_name"


def untrainable(model: Mapping[str, Any]) -> list[ConfigError]:
    """Why a model cannot be trained exactly; empty when it can.

    Args:
        model: its ``config.json``, with the overrides applied.
    """
    family = model.get("model_type")
    problems = []
    if model.get("quantization_config") is not None:
        problems.append(ConfigError("the model is quantized", where=_NAME, fix="use the model that it was made of"))
    if family not in ARCHITECTURES:
        problems.append(
            ConfigError(
                f"models of the family {family!r} are not supported",
                where=_NAME,
                fix=f"use one of {', '.join(ARCHITECTURES)}: packed training is proven exact for these",
            )
        )
    if model.get("use_bidirectional_attention"):
        problems.append(
            ConfigError(
                "tokens of the model look at later ones (use_bidirectional_attention): it cannot learn to write",
                where=_NAME,
                fix="use a causal model",
            )
        )
    if model.get("output_router_logits"):
        problems.append(
            ConfigError(
                "the model asks for a loss that balances its experts (output_router_logits); the loss here is that of "
                "the trained tokens alone",
                where=_NAME,
                fix="set policy.hf_config_overrides.output_router_logits=false",
            )
        )
    return problems
