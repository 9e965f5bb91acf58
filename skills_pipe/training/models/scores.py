"""Attention scores of which no fused kernel knows: capped ones (Gemma 2), and sinks that take weight (gpt-oss)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import dropout
from torch.utils.checkpoint import checkpoint

_BLOCK = 512
"""Tokens whose scores exist at one time, where a document has more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What a layer makes of the products of queries and keys.

    Attributes:
        scaling: factor on them; None: ``head_dim ** -0.5``.
        dropout: probability of dropping an attention weight.
        window: a token sees itself and this many minus one before it; None: the whole document.
        softcap: scaled products ``s`` become ``softcap * tanh(s / softcap)``; None: they stay.
        sinks: ``[heads]``, the score of something that each token sees besides and that has no value; None: nothing.
    """

    scaling: float | None = None
    dropout: float = 0.0
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None

    @property
    def fused(self) -> bool:
        """Whether kernels compute them."""
        return self.softcap is None and self.sinks is None


def attend_by_scores(query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
    """Causal attention within one document, of its last tokens if there are fewer queries than keys.

    The scores of a block of tokens are there at one time, and are computed again for the backward pass.

    Args:
        query: ``[1, heads, looking, head_dim]``.
        key: ``[1, kv_heads, tokens, head_dim]``.
        value: as ``key``.
        scores: of the layer.

    Returns:
        ``[1, heads, looking, head_dim]``.
    """
    blocks = list(_blocks(query.shape[2], key.shape[2], scores.window))
    compute = partial(_block, scores=scores)
    if len(blocks) > 1 and torch.is_grad_enabled():
        compute = partial(checkpoint, compute, use_reentrant=False)
    parts = [compute(query[:, :, looking], key[:, :, seen], value[:, :, seen]) for looking, seen in blocks]
    return torch.cat(parts, dim=2)


def visible(looking: int, tokens: int, window: int | None, device: torch.device) -> Tensor:
    """Mask ``[looking, tokens]`` of the last tokens of a document: True where a token may look."""
    position = torch.arange(tokens, device=device)
    distance = position[-looking:, None] - position[None, :]
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


def _blocks(looking: int, tokens: int, window: int | None) -> Iterator[tuple[slice, slice]]:
    """Which queries go together, and the keys that they see."""
    before = tokens - looking
    for start in range(0, looking, _BLOCK):
        end = min(start + _BLOCK, looking)
        first = 0 if window is None else max(0, before + start + 1 - window)
        yield slice(start, end), slice(first, before + end)


def _block(query: Tensor, key: Tensor, value: Tensor, *, scores: Scores) -> Tensor:
    """:func:`attend_by_scores` at once."""
    heads, looking, width = query.shape[1:]
    grouped = query.unflatten(1, (key.shape[1], -1))
    products = grouped @ key.unsqueeze(2).transpose(-1, -2) * (scores.scaling or width**-0.5)
    products = products.to(torch.promote_types(products.dtype, torch.float32))
    if scores.softcap is not None:
        products = torch.tanh(products / scores.softcap) * scores.softcap
    products = products.masked_fill(~visible(looking, key.shape[2], scores.window, query.device), -torch.inf)
    if scores.sinks is not None:
        sinks = scores.sinks.to(products.dtype).view(1, key.shape[1], -1, 1, 1)
        products = torch.cat([products, sinks.expand(*products.shape[:-1], 1)], dim=-1)
    weights = products.softmax(dim=-1)[..., : key.shape[2]]
    weights = dropout(weights, scores.dropout, training=scores.dropout > 0).to(value.dtype)
    return (weights @ value.unsqueeze(2)).view(1, heads, looking, value.shape[-1])
