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

from skills_pipe.training.models.context import Share, Stretch
from skills_pipe.training.models.kernels.varlen import Lengths, Offsets, VarlenKernel
from skills_pipe.training.models.scores import Scores, attend_by_scores, visible

IMPLEMENTATION = "skills_pipe_packed"
"""Name under which the function is known to transformers (``attn_implementation``)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Documents:
    """How a row of ``sum(lengths)`` tokens is divided.

    Attributes:
        lengths: tokens of each document, in order.
        cu_seqlens: int32 ``[len(lengths) + 1]`` on the device of the row: where each document starts, and the end.
        share: of the row that this rank has, where several ranks share it; None: it has the row.
        kernel: for all documents at once, in layers that it takes; None: each document by itself.
    """

    lengths: tuple[int, ...]
    cu_seqlens: Tensor
    share: Share | None = None
    kernel: VarlenKernel | None = None

    @classmethod
    def of(cls, cu_seqlens: Tensor) -> Documents:
        """The documents between the offsets ``cu_seqlens``."""
        return cls(lengths=tuple(cu_seqlens.diff().tolist()), cu_seqlens=cu_seqlens)


@torch.compiler.disable(reason="the lengths of documents differ from row to row")
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
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Causal attention within each document, in the form that transformers calls.

    Args:
        module: the attention layer; not used.
        query: ``[1, heads, tokens, head_dim]``.
        key: ``[1, kv_heads, tokens, head_dim]``.
        value: as ``key``.
        attention_mask: None; anything else would be ignored, so it is refused.
        documents: how the tokens are divided; where ranks share the row, the tokens given are this rank's.
        scaling: factor on the scores, ``head_dim ** -0.5`` by default.
        dropout: probability of dropping an attention weight.
        sliding_window: a token sees itself and this many minus one before it; None: the whole document.
        softcap: limit of the scores; None: they have none.
        s_aux: ``[heads]``, scores of sinks; None: there are none.

    Returns:
        ``[1, tokens, heads, head_dim]`` and None for the weights.
    """
    if attention_mask is not None:
        raise ValueError("packed attention takes no attention mask: documents say what a token may see")
    settings = Scores(scaling=scaling, dropout=dropout, window=sliding_window, softcap=softcap, sinks=s_aux)
    share, kernel = documents.share, documents.kernel
    if share is None:
        lengths, offsets = documents.lengths, documents.cu_seqlens
        return attend((query, key, value), (lengths, lengths), (offsets, offsets), settings, kernel), None
    key, value = share.of_all(key, value)
    queries = query.split([stretch.end - stretch.begin for stretch in share.stretches], dim=2)
    outputs = [_stretch(*each, key, value, settings, kernel) for each in zip(share.stretches, queries, strict=True)]
    return torch.cat(outputs, dim=1), None


def attend(
    tensors: tuple[Tensor, Tensor, Tensor],
    lengths: Lengths,
    offsets: Offsets,
    settings: Scores,
    kernel: VarlenKernel | None = None,
) -> Tensor:
    """Causal attention within documents, of which the last tokens look.

    Args:
        tensors: query, key and value.
        lengths: for each document, how many of its tokens look, and how many are looked at.
        offsets: where the tokens of each document start, among the queries and among the keys.
        settings: of the layer.
        kernel: for all documents at once, if it takes such a layer; None: each document by itself.

    Returns:
        ``[1, tokens, heads, head_dim]``.
    """
    query, key, value = tensors
    if kernel is not None and kernel.takes(query.dtype, settings):
        return kernel(tensors, lengths, offsets, settings)
    documents = zip(query.split(lengths[0], 2), key.split(lengths[1], 2), value.split(lengths[1], 2), strict=True)
    # Joined along tokens with the heads behind them, so that one copy gives the layout that is asked for.
    return torch.cat([_one_document(*document, settings).transpose(1, 2) for document in documents], dim=1)


def _stretch(
    stretch: Stretch, query: Tensor, key: Tensor, value: Tensor, settings: Scores, kernel: VarlenKernel | None
) -> Tensor:
    """Attention of the tokens of a stretch, with the keys and values of the whole row."""
    seen = slice(stretch.first, stretch.end)
    tensors = (query, key[:, :, seen], value[:, :, seen])
    lengths, offsets = (stretch.queries, stretch.keys), (stretch.query_offsets, stretch.key_offsets)
    return attend(tensors, lengths, offsets, settings, kernel)


def _one_document(query: Tensor, key: Tensor, value: Tensor, settings: Scores) -> Tensor:
    """Attention within one document, of its last tokens if there are fewer queries than keys.

    On CPU the kernel's backward in bf16 is up to three times slower than in fp32 for short documents, so it runs in
    fp32 there.
    """
    dtype, looking, window = query.dtype, query.shape[2], settings.window
    if window is not None:
        # What no query sees is left out.
        key, value = key[:, :, -(looking + window - 1) :], value[:, :, -(looking + window - 1) :]
    tokens = key.shape[2]
    simple = looking == tokens and (window is None or tokens <= window)
    if not query.is_cuda:
        precise = torch.promote_types(dtype, torch.float32)
        query, key, value = query.to(precise), key.to(precise), value.to(precise)
    if not settings.fused:
        return attend_by_scores(query, key, value, settings).to(dtype)
    output = scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=None if simple else visible(looking, tokens, window, query.device),
        is_causal=simple,
        dropout_p=settings.dropout,
        scale=settings.scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output.to(dtype)


def _no_mask(*_: object, **__: object) -> None:
    """In place of transformers' mask builders: documents make a mask needless."""


AttentionInterface.register(IMPLEMENTATION, packed_attention)
AttentionMaskInterface.register(IMPLEMENTATION, _no_mask)
