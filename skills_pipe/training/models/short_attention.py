"""Causal attention over one short document in bf16 on a CPU, by matrix products.

torch's fused kernel for CPUs is at a fraction of the speed that the processor has for bf16, above all in its backward
pass. Here scores are made and normalised in fp32, and everything else is a product of bf16 matrices that is summed in
fp32, much as in fused kernels for GPUs. The weights of a document are kept for the backward pass, so documents have to
be short.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SHORTEST = 64
"""Tokens of a document from which on this is faster than the fused kernel."""

LONGEST = 512
"""Tokens of a document up to which its weights, heads x tokens x tokens, are few beside other activations."""


def short_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Causal attention within one document.

    Args:
        query: bf16 ``[1, heads, tokens, head_dim]``.
        key: bf16 ``[1, kv_heads, tokens, head_dim]``; ``kv_heads`` divides ``heads``.
        value: as ``key``.
        scaling: factor on the scores, ``head_dim ** -0.5`` by default.

    Returns:
        bf16, of the shape of ``query``.
    """
    factor = query.shape[3] ** -0.5 if scaling is None else scaling
    return _ShortAttention.apply(query, key, value, factor)


class _ShortAttention(torch.autograd.Function):
    """Heads that share a key are one matrix of ``group x tokens`` rows: G = kv_heads matrices, no repeated keys."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, factor: float) -> Tensor:
        _, heads, tokens, width = query.shape
        groups = key.shape[1]
        queries, keys, values = query.reshape(groups, -1, width), key[0], value[0]
        scores = torch.bmm(queries.float(), keys.float().transpose(1, 2)).mul_(factor)
        future = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).triu_(1)
        scores.view(heads, tokens, tokens).masked_fill_(future, -torch.inf)
        weights = torch.softmax(scores, dim=2).to(query.dtype)
        output = torch.bmm(weights, values)
        ctx.save_for_backward(queries, keys, values, weights, output)
        ctx.factor = factor
        return output.view(1, heads, tokens, width)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        queries, keys, values, weights, output = ctx.saved_tensors
        slope = upstream.reshape(output.shape)
        grad_value = torch.bmm(weights.transpose(1, 2), slope)
        inner = (slope.float() * output).sum(dim=2, keepdim=True)
        grad_scores = torch.bmm(slope, values.transpose(1, 2)).float().sub_(inner).mul_(weights).mul_(ctx.factor)
        grad_scores = grad_scores.to(queries.dtype)
        grad_query = torch.bmm(grad_scores, keys)
        grad_key = torch.bmm(grad_scores.transpose(1, 2), queries)
        return grad_query.view(upstream.shape), grad_key[None], grad_value[None], None
