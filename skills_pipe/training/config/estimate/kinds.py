"""What the layers of each family of models are made of, where its ``config.json`` does not say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Windowed = Literal["all", "late", "but every nth"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One family.

    Attributes:
        norm: ``rms`` scales in the precision of the model what was normalised in fp32, ``rms in fp32`` rounds after
            that, ``layer`` is one kernel and has a bias.
        norms: of the residual stream in one layer; beyond two, those of what attention and MLP add to it.
        qk_norm: queries and keys are normalised.
        fused: queries, keys and values are one product; gate and branch of the MLP another.
        gated: the MLP has two branches, of which one is the gate.
        linear: its products are ``nn.Linear``, which adapters know.
        positions: each has a vector that is learned; else queries and keys are rotated.
        sinks: each head has a score besides, which has no value.
        expert_gate: numbers that experts keep for each neuron, from the products to the activated one.
        expert_bias: experts and their router have biases.
        qkv_bias: always; None: if ``attention_bias`` says so.
        attention_bias, tied, head_dim, kv_heads, experts_per_token, window, softcap: where ``config.json`` lacks them;
            ``head_dim`` None: width through heads; ``kv_heads`` None: as many as heads.
        window_is_chosen: there is a window only if ``use_sliding_window`` says so.
        windowed: layers in which a token does not see its whole document, where no ``layer_types`` says it.
        period: for ``but every nth``.
    """

    norm: Literal["rms", "rms in fp32", "layer"] = "rms"
    norms: int = 2
    qk_norm: bool = False
    fused: bool = False
    gated: bool = True
    linear: bool = True
    positions: bool = False
    sinks: bool = False
    expert_gate: int = 4
    expert_bias: bool = False
    qkv_bias: bool | None = None
    attention_bias: bool = False
    tied: bool = False
    head_dim: int | None = None
    kv_heads: int | None = None
    experts_per_token: int | None = None
    window: int | None = None
    softcap: float | None = None
    window_is_chosen: bool = False
    windowed: Windowed = "all"
    period: int = 1


KINDS: Mapping[str, Kind] = {
    "llama": Kind(),
    "mistral": Kind(kv_heads=8, window=4096),
    "qwen2": Kind(qkv_bias=True, kv_heads=32, window=4096, window_is_chosen=True, windowed="late"),
    "qwen3": Kind(qk_norm=True, head_dim=128, kv_heads=32, window=4096, window_is_chosen=True, windowed="late"),
    "qwen3_moe": Kind(qk_norm=True, kv_heads=4, window=4096, window_is_chosen=True, experts_per_token=8),
    "gemma": Kind(norm="rms in fp32", tied=True, head_dim=256, kv_heads=16),
    "gemma2": Kind(
        norm="rms in fp32",
        norms=4,
        tied=True,
        head_dim=256,
        kv_heads=4,
        window=4096,
        softcap=50.0,
        windowed="but every nth",
        period=2,
    ),
    "gemma3_text": Kind(
        norm="rms in fp32",
        norms=4,
        qk_norm=True,
        tied=True,
        head_dim=256,
        kv_heads=4,
        window=4096,
        windowed="but every nth",
        period=6,
    ),
    "phi3": Kind(fused=True, qkv_bias=False),
    "gpt_oss": Kind(
        norm="rms in fp32",
        sinks=True,
        expert_gate=7,
        expert_bias=True,
        attention_bias=True,
        head_dim=64,
        kv_heads=8,
        experts_per_token=4,
        window=128,
        windowed="but every nth",
        period=2,
    ),
    "gpt2": Kind(
        norm="layer",
        fused=True,
        gated=False,
        linear=False,
        positions=True,
        qkv_bias=True,
        attention_bias=True,
        tied=True,
    ),
}
"""By ``model_type``."""

FAMILIES = tuple(KINDS)
"""``model_type`` of the models that can be counted."""
