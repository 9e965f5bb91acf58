"""What a ``config.json`` says of single layers: windows and experts; and its names, in one spelling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skills_pipe.training.config.estimate.kinds import Kind

_NAMES_OF_GPT2 = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
}
"""What all other families call so."""


@dataclass(frozen=True, kw_only=True)
class Experts:
    """Of one layer of a mixture.

    Attributes:
        count: of them.
        chosen: how many compute a token.
        inner: width of each.
    """

    count: int
    chosen: int
    inner: int


def spelled_alike(config: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """A ``config.json`` with the names of most families."""
    if not kind.positions:
        return dict(config)
    found = {**config, **{name: config.get(own, config.get(name)) for name, own in _NAMES_OF_GPT2.items()}}
    # It has one head for keys and values for each of queries, whatever else its file holds.
    found |= {"num_key_value_heads": None, "head_dim": None}
    inner, hidden = config.get("n_inner"), found["hidden_size"]
    return found | {"intermediate_size": 4 * hidden if inner is None and isinstance(hidden, int) else inner}


def experts(config: Mapping[str, Any], kind: Kind) -> Experts | None:
    """Those of its mixtures; None where it has none, or does not say how many."""
    if kind.experts_per_token is None:
        return None
    # Qwen's files say the former, those that transformers writes the latter.
    count = config.get("num_experts", config.get("num_local_experts"))
    inner = config["intermediate_size"] if kind.expert_bias else config.get("moe_intermediate_size")
    if not count or not inner:
        return None
    return Experts(count=count, chosen=config.get("num_experts_per_tok", kind.experts_per_token), inner=inner)


def mixtures(config: Mapping[str, Any], kind: Kind) -> tuple[int, ...]:
    """Which layers have experts in the place of an MLP."""
    if kind.experts_per_token is None:
        return ()
    plain, every = config.get("mlp_only_layers") or (), config.get("decoder_sparse_step", 1)
    return tuple(
        layer for layer in range(config["num_hidden_layers"]) if layer not in plain and (layer + 1) % every == 0
    )


def windows(config: Mapping[str, Any], kind: Kind) -> tuple[int | None, ...]:
    """For each layer how many tokens back it sees; None: all."""
    layers, window = config["num_hidden_layers"], config.get("sliding_window", kind.window)
    # Of Qwen's models alone, whose files have a width nevertheless.
    if not config.get("use_sliding_window", not kind.window_is_chosen):
        window = None
    kinds = config.get("layer_types")
    if kinds is not None:
        return tuple(window if each == "sliding_attention" else None for each in kinds)
    if kind.windowed == "late":
        return tuple(window if layer >= config.get("max_window_layers", 28) else None for layer in range(layers))
    period = config.get("sliding_window_pattern", kind.period) if kind.windowed == "but every nth" else layers + 1
    return tuple(window if (layer + 1) % period else None for layer in range(layers))
