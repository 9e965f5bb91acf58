"""What the layers of a model keep from the forward to the backward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from skills_pipe.training.config.estimate.shape import ModelShape

Recomputed = Literal["nothing", "full", "selective"]

FLOAT = 4
"""Bytes of an fp32 value."""
SCORES_AT_ONCE = 512
"""Tokens of a document whose scores exist at one time, where no kernel computes them (``models/scores.py``)."""

_INDEX = 8
"""Bytes of a number that says where a token goes."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under which a row is computed; what is not said: one document, on one rank, as on a GPU.

    Attributes:
        cpu: there attention computes in fp32, and what is dropped is kept in the type of the rest.
        document: tokens of each document; None: the row is one.
        looking: tokens of a document that this rank has at once, where ranks share a row; None: all.
        shared_experts: other ranks have experts of this one's tokens.
        tensor: ranks that share each layer; heads, neurons and words of the shape are then those of one of them.
        sequence: these ranks share the tokens outside of attention and MLP.
        masks: no kernel for attention knows windows, so that masks are made.
    """

    cpu: bool = False
    document: int | None = None
    looking: int | None = None
    shared_experts: bool = False
    tensor: int = 1
    sequence: bool = False
    masks: bool = False

    @property
    def apart(self) -> int:
        """Ranks of which each keeps some tokens of what is outside of attention and MLP."""
        return self.tensor if self.sequence else 1


def activation_bytes(
    shape: ModelShape,
    tokens: int,
    *,
    width: int,
    recompute: Recomputed = "nothing",
    conditions: Conditions = Conditions(),
) -> int:
    """Bytes that autograd keeps for the layers, for one packed row of ``tokens`` tokens.

    Counted tensor by tensor after the layers of transformers, as Korthikanti et al. 2022 (section 4.1) do for GPT.
    Experts are taken to get equally many tokens on each rank.

    Args:
        shape: the model.
        tokens: of one microbatch on this rank.
        width: bytes of a value in the forward pass.
        recompute: what is computed again: of ``full`` layers their inputs are kept, and the activations of one; with
            ``selective`` the results of products and of attention besides.
        conditions: what else it depends on.
    """
    norm = _norm(shape, shape.hidden, width) // conditions.apart
    dropped = _dropped(shape, width, conditions)
    # Behind the last norm, for the loss; cosines and sines of the rotation; what an embedding drops.
    ends = norm + 2 * shape.hidden * width + 2 * shape.head_dim * width + shape.hidden * dropped
    document = min(conditions.document or tokens, tokens)
    layers = [_layer(shape, number, document, width, conditions) for number in range(shape.layers)]
    if recompute == "nothing":
        return tokens * (sum(layers) + ends)
    kept = [shape.hidden * width // conditions.apart] * shape.layers
    if recompute == "selective":
        kept = [each + _products(shape, number) * width for number, each in enumerate(kept)]
    return tokens * (sum(kept) + max(layers) + ends)


def block_bytes(shape: ModelShape, document: int, *, width: int) -> int:
    """Scores of attention that no kernel computes, which are there again for a moment in the backward pass.

    Args:
        shape: the model.
        document: tokens of the longest document.
        width: bytes of a value in the forward pass.
    """
    if shape.fused_attention or document <= SCORES_AT_ONCE:
        return 0
    return SCORES_AT_ONCE * _score_bytes(shape, document, width)


def _layer(shape: ModelShape, number: int, document: int, width: int, conditions: Conditions) -> int:
    """Bytes of one layer for one token."""
    # The first two norms feed products, which keep what they get; what others give is only added.
    norms = shape.kind.norms * _norm(shape, shape.hidden, width) // conditions.apart + 2 * shape.hidden * width
    if shape.kind.qk_norm:
        norms += _norm(shape, shape.queries + shape.keys, width)
    mlp = _mixture(shape, width, conditions) if number in shape.mixtures else _mlp(shape, width)
    dropped = _dropped(shape, width, conditions)
    window = shape.windows[number] if number < len(shape.windows) else None
    return norms + _attention(shape, window, document, width, conditions) + mlp + 2 * shape.hidden * dropped


def _dropped(shape: ModelShape, width: int, conditions: Conditions) -> int:
    """For each value that may be dropped."""
    return (width if conditions.cpu else 1) * shape.dropout


def _norm(shape: ModelShape, size: int, width: int) -> int:
    """A kernel keeps its input; else that is kept in fp32, and what is normalised in the type in which it is scaled."""
    if shape.kind.norm == "layer":
        return size * width + 2 * FLOAT
    return size * (FLOAT + (width if shape.kind.norm == "rms" else FLOAT)) + FLOAT


def _attention(shape: ModelShape, window: int | None, document: int, width: int, conditions: Conditions) -> int:
    """Queries, keys, values and the output, which the next product may keep in a form of its own; or scores."""
    queries, keys, own = shape.queries, shape.keys, FLOAT if conditions.cpu else width
    if shape.fused_attention:
        # Values that are a part of one product keep all of it, unless they are copied or nothing else is made of it.
        whole = shape.kind.fused and not shape.kind.positions and own == width
        values = queries + 2 * keys if whole else keys
        # In fp32 it is no kernel that knows a window, but one that is given a mask.
        masked = (own == FLOAT or conditions.masks) and window is not None and window < document
        mask = own * document if masked else 0
        return own * (2 * queries + keys + values) + queries * width + FLOAT * shape.heads + mask
    looking = min(conditions.looking or document, document)
    if looking > SCORES_AT_ONCE:
        return own * (queries + 2 * keys) + queries * width
    # Pieces of a document see more of it the later they come: half of it and half of a piece on average.
    seen = (document + looking) // 2
    if window is not None and looking < document:
        seen = min(seen, looking + window - 1)
    # Keys and values are repeated for all queries that share them.
    return 3 * queries * own + queries * width + _score_bytes(shape, seen, own)


def _score_bytes(shape: ModelShape, seen: int, width: int) -> int:
    """Of one token: weights in fp32, and rounded; what the cap gave; and which tokens it may see, for all heads."""
    rounded = width if width < FLOAT else 0
    return seen * (shape.heads * (FLOAT * (1 + shape.capped) + rounded) + 1)


def _mlp(shape: ModelShape, width: int) -> int:
    """With a gate: both branches, the activated one and their product."""
    return width * shape.inner * (4 if shape.kind.gated else shape.plain_kept + 1)


def _mixture(shape: ModelShape, width: int, conditions: Conditions) -> int:
    """For each expert of a token its input, what is between and its output; and what chooses them."""
    if shape.experts is None:
        raise ValueError("a mixture has experts")
    copies = 2 + conditions.shared_experts
    each = width * (copies * shape.hidden + shape.kind.expert_gate * shape.experts.inner) + 5 * _INDEX
    # Ranks that share layers have the same tokens, and each computes with its own experts.
    return shape.experts.chosen * each // conditions.tensor + FLOAT * shape.experts.count


def _products(shape: ModelShape, number: int) -> int:
    """Numbers that products with weights, and attention in one kernel, give for one token."""
    kept = shape.queries + 2 * shape.keys + shape.hidden + shape.queries * shape.fused_attention
    if number not in shape.mixtures:
        return kept + (2 if shape.kind.gated else 1) * shape.inner + shape.hidden
    if shape.experts is None:
        raise ValueError("a mixture has experts")
    kept += shape.experts.count
    # Biases are added in place to what products of gpt-oss's experts give, so that these are not kept.
    return kept if shape.kind.expert_bias else kept + shape.experts.chosen * (2 * shape.experts.inner + shape.hidden)
