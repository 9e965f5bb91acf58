"""Attention over packed documents: tokens attend within their own document only.

A row holds documents one after another, without padding. Which tokens belong together is said by
:class:`Documents`, passed through the model to this function; no S x S mask is ever built. It works only as long
as the model gets no attention mask and no cache (Hugging Face models otherwise fall back to one causal sequence),
which :func:`skills_pipe.training.models.loss.SupervisedLoss` takes care of.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from skills_pipe.training.models.short_attention import LONGEST, SHORTEST, short_attention

IMPLEMENTATION = "skills_pipe_packed"
"""Name under which the function is known to transformers (``attn_implementation``)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Documents:
    """How a row of ``sum(lengths)`` tokens is divided.

    Attributes:
        lengths: tokens of each document, in order.
        cu_seqlens: int32 ``[len(lengths) + 1]`` on the device of the row: where each document starts, and the end.
    """

    lengths: tuple[int, ...]
    cu_seqlens: Tensor

    @classmethod
    def of(cls, cu_seqlens: Tensor) -> Documents:
        """The documents between the offsets ``cu_seqlens``."""
        return cls(lengths=tuple(cu_seqlens.diff().tolist()), cu_seqlens=cu_seqlens)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    documents: Documents,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Causal attention within each document, in the form that transformers calls.

    Args:
        module: the attention layer; not used.
        query: ``[1, heads, tokens, head_dim]``.
        key: ``[1, kv_heads, tokens, head_dim]``.
        value: as ``key``.
        attention_mask: None; anything else would be ignored, so it is refused.
        documents: how the tokens are divided.
        scaling: factor on the scores, ``head_dim ** -0.5`` by default.
        dropout: probability of dropping an attention weight.
        sliding_window: a token sees itself and this many minus one before it; None: the whole document.

    Returns:
        ``[1, tokens, heads, head_dim]`` and None for the weights.
    """
    if attention_mask is not None:
        raise ValueError("packed attention takes no attention mask: documents say what a token may see")
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and dropout == 0.0:
        return _varlen(query, key, value, documents, scaling=scaling, sliding_window=sliding_window), None
    return _per_document(query, key, value, documents.lengths, (scaling, dropout, sliding_window)), None


def _varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    documents: Documents,
    *,
    scaling: float | None,
    sliding_window: int | None,
) -> Tensor:
    """One fused kernel for all documents; CUDA, half precision, no dropout."""
    from torch.nn.attention.varlen import varlen_attn  # the module needs a CUDA build

    longest = max(documents.lengths)
    output = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        documents.cu_seqlens,
        documents.cu_seqlens,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output.unsqueeze(0)


def _per_document(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: tuple[int, ...],
    settings: tuple[float | None, float, int | None],
) -> Tensor:
    """One call per document; any device and precision."""
    documents = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    # Joined along tokens with the heads behind them, so that one copy gives the layout that is asked for.
    return torch.cat([_one_document(*document, settings).transpose(1, 2) for document in documents], dim=1)


def _one_document(
    query: Tensor, key: Tensor, value: Tensor, settings: tuple[float | None, float, int | None]
) -> Tensor:
    """Attention within one document.

    On CPU the fused kernel's backward in bf16 is up to three times slower than in fp32 for short documents, so it runs
    in fp32 there; where products of bf16 matrices are faster than either, they take its place.
    """
    scaling, dropout, window = settings
    dtype, tokens = query.dtype, query.shape[2]
    seen = window is None or tokens <= window
    if not query.is_cuda:
        if dtype == torch.bfloat16 and SHORTEST <= tokens <= LONGEST and seen and dropout == 0.0:
            return short_attention(query, key, value, scaling)
        query, key, value = query.float(), key.float(), value.float()
    output = scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=_band(tokens, window, query.device),
        is_causal=seen,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output.to(dtype)


def _band(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Mask of a document longer than the window: True where a token may look."""
    if window is None or length <= window:
        return None
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < window)


def _no_mask(*_: object, **__: object) -> None:
    """In place of transformers' mask builders: documents make a mask needless."""


AttentionInterface.register(IMPLEMENTATION, packed_attention)
AttentionMaskInterface.register(IMPLEMENTATION, _no_mask)
