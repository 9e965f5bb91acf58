"""Attention as flash-attn documents it, in plain torch with one mask over all documents; and with faults."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from skills_pipe.training.models.kernels.varlen import VarlenKernel, as_flash_attn
from skills_pipe.training.models.scores import Scores

FAULTS = (
    *("no window", "one token more in the window", "top left", "leaks", "another scale", "not causal"),
    *("no cap", "wrong gradients", "another head", "sees nothing far"),
)


def flash_attn_varlen_func(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
    block_table=None,
    *,
    fault=None,
):
    """``[tokens, heads, head_dim]``; softmax is in float32, and its weights are rounded as kernels round them."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert (max_seqlen_q, max_seqlen_k) == tuple(int(ends.diff().max()) for ends in (cu_seqlens_q, cu_seqlens_k))
    queries, keys = cu_seqlens_q.diff(), cu_seqlens_k.diff()
    of_query, of_key = (torch.arange(len(each)).repeat_interleave(each) for each in (queries, keys))
    place = torch.arange(len(q)) - cu_seqlens_q[of_query]
    if fault != "top left":
        place = place + (keys - queries)[of_query]
    distance = place[:, None] - (torch.arange(len(k)) - cu_seqlens_k[of_key])[None]
    left, right = window_size
    right = 0 if causal else right
    seen = torch.ones_like(distance, dtype=torch.bool)
    if right >= 0 and fault != "not causal":
        seen &= distance >= -right
    if left >= 0 and fault != "no window":
        seen &= distance <= left + (fault == "one token more in the window")
    if fault == "sees nothing far":
        seen &= distance < 256
    same = of_query[:, None] == of_key[None]
    # A kernel that leaks lets the first tokens of a document see the end of the one before.
    seen &= same | ((of_query[:, None] == of_key[None] + 1) & (fault == "leaks"))
    group = q.shape[1] // k.shape[1]
    k, v = (each.roll(int(fault == "another head"), 1).repeat_interleave(group, dim=1) for each in (k, v))
    if fault == "wrong gradients":
        k = OtherGradient.apply(k)
    usual = q.shape[2] ** -0.5
    scale = 1.1 * usual if fault == "another scale" else (softmax_scale or usual)
    precise = torch.promote_types(q.dtype, torch.float32)
    scores = torch.einsum("qhd,khd->hqk", q.to(precise), k.to(precise)) * scale
    if softcap and fault != "no cap":
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1).to(q.dtype)
    return torch.einsum("hqk,khd->qhd", weights, v)


class OtherGradient(torch.autograd.Function):
    """Only the gradient is another."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 1.05


class InAnyPrecision(VarlenKernel):
    """What is compared in float32 shows more than in half precision."""

    def takes(self, dtype: torch.dtype, layer: Scores) -> bool:
        return super().takes(torch.bfloat16, layer)


def kernel(fault: str | None = None, *, function: Callable[..., Tensor] = flash_attn_varlen_func) -> VarlenKernel:
    """The function as a kernel, called as flash-attn is."""
    called = partial(function, fault=fault) if fault is not None else function
    return InAnyPrecision(name="as documented", compute=as_flash_attn(called), caps=True)
