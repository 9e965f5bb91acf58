"""The training loss: the summed cross entropy of supervised tokens, with logits for those tokens only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from skills_pipe.training.data.batches import IGNORE
from skills_pipe.training.models.attention import IMPLEMENTATION, Documents

_CHUNK_ELEMENTS = 2**24
"""Logits that exist at one time, as a number of fp32 values (64 MiB)."""


class SupervisedLoss(nn.Module):
    """A causal language model whose forward gives the loss of one packed row.

    The wrapper is what gets sharded, so that the output layer's weight is whole when the loss needs it. It also holds
    the conditions under which packed documents stay apart: our attention, position ids that restart, no cache and no
    mask.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        model.set_attn_implementation(IMPLEMENTATION)
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        labels: Tensor,
        documents: Documents,
        *,
        scale: float,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Sum over supervised positions of ``scale`` times their weight times their cross entropy, as an fp32 scalar.

        Args:
            input_ids: int64 ``[1, tokens]``.
            position_ids: int64 ``[1, tokens]``, from 0 in each document.
            labels: int64 ``[1, tokens]``: the token that follows within the document, or ``IGNORE``.
            documents: how the row is divided.
            scale: one over the weight of the supervised tokens of the whole global batch, or 1.
            weights: float32 ``[1, tokens]``, one for each label; None: all are 1.
        """
        hidden = self.model.base_model(
            input_ids=input_ids, position_ids=position_ids, attention_mask=None, use_cache=False, documents=documents
        ).last_hidden_state
        supervised = (labels[0] != IGNORE).nonzero().squeeze(1)
        weight = self.model.get_output_embeddings().weight
        factors = weights[0, supervised] if weights is not None else None
        return summed_cross_entropy(hidden[0, supervised], weight, labels[0, supervised], scale=scale, factors=factors)


def summed_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    scale: float = 1.0,
    factors: Tensor | None = None,
    chunk_elements: int = _CHUNK_ELEMENTS,
) -> Tensor:
    """``scale * sum_i(factors_i * -log softmax(hidden_i @ weight.T)[labels_i])``, summed in fp32, never all logits.

    Gradients are made in the forward pass, chunk by chunk, and only scaled in the backward pass: nothing of the size
    of the logits is kept, and nothing is computed twice. There is no second derivative.

    Args:
        hidden: ``[n, width]``; n may be 0, the loss is then 0 with zero gradients.
        weight: ``[vocabulary, width]``, of the dtype of ``hidden``.
        labels: int64 ``[n]``.
        scale: factor on the loss.
        factors: ``[n]``, factor of each label; None: all are 1. They get no gradient.
        chunk_elements: number of logits to hold at one time.
    """
    rows = max(1, chunk_elements // weight.shape[0])
    return _SummedCrossEntropy.apply(hidden, weight, labels, scale, factors, rows, torch.is_grad_enabled())


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        scale: float,
        factors: Tensor | None,
        rows: int,
        differentiate: bool,
    ) -> Tensor:
        precise = torch.promote_types(hidden.dtype, torch.float32)
        loss = torch.zeros((), dtype=precise, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if differentiate else None
        # A single chunk needs no accumulator; several are added up in fp32, not in the weight's precision.
        # A frozen output layer, as under adapters, is spared the product that is as large as the logits'.
        learns = differentiate and ctx.needs_input_grad[1]
        several = learns and hidden.shape[0] > rows
        grad_weight = torch.zeros(weight.shape, dtype=precise, device=weight.device) if several else None
        for start in range(0, hidden.shape[0], rows):
            part, target = hidden[start : start + rows], labels[start : start + rows, None]
            logits = (part @ weight.T).to(precise)
            normaliser = logits.logsumexp(dim=1, keepdim=True)
            each = normaliser - logits.gather(1, target)
            factor = factors[start : start + rows, None].to(precise) if factors is not None else None
            loss += (each if factor is None else each * factor).sum()
            if not differentiate:
                continue
            slope = logits.sub_(normaliser).exp_()
            slope.scatter_add_(1, target, slope.new_full(target.shape, -1.0))
            slope = slope.mul_(scale if factor is None else factor * scale).to(hidden.dtype)
            torch.mm(slope, weight, out=grad_hidden[start : start + rows])
            if not learns:
                continue
            share = slope.T @ part
            grad_weight = share if grad_weight is None else grad_weight.add_(share)
        if differentiate:
            if learns and grad_weight is None:
                grad_weight = torch.zeros_like(weight)
            ctx.save_for_backward(grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype))
        return loss * scale

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        factor = upstream.to(grad_hidden.dtype)
        scaled = None if grad_weight is None else grad_weight * factor
        return grad_hidden * factor, scaled, None, None, None, None, None
