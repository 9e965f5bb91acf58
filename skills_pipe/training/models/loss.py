"""The training loss: the summed cross entropy of supervised tokens, with logits for those tokens only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from skills_pipe.training.data.batches import IGNORE
from skills_pipe.training.models.attention import IMPLEMENTATION, Documents
from skills_pipe.training.models.context import ContextGroup
from skills_pipe.training.models.embedding_noise import with_noise
from skills_pipe.training.models.expert_load import counting
from skills_pipe.training.models.generate import Generation, Prompt, generate
from skills_pipe.training.models.head import Head
from skills_pipe.training.models.kernels.varlen import VarlenKernel
from skills_pipe.training.models.liger import summed_by_liger
from skills_pipe.training.models.row import Row

LossKernel = Literal["chunked", "liger"]
"""What computes the loss: :func:`summed_cross_entropy`, or Liger."""

_CHUNK_ELEMENTS = 2**24
"""Logits that exist at one time, as a number of fp32 values (64 MiB)."""


class SupervisedLoss(nn.Module):
    """A causal language model whose forward gives the loss of one packed row.

    The wrapper is what gets sharded, so that the output layer's weight is whole when the loss needs it. It also holds
    the conditions under which packed documents stay apart: our attention, position ids that restart, no cache and no
    mask.

    Args:
        model: gets our attention.
        noise: strength of the noise on embeddings while the model trains; None for no noise.
        row_multiple: what the number of tokens is made divisible by, where ranks share the tokens of a row: a document
            without labels is put at its end.
        context: ranks that share each row, of whose loss this one then gives its tokens' part; None: it has them all.
        loss_kernel: ``liger`` is for ranks that have all words, on GPUs. It has no part in rows with weights.
        attention_kernel: computes that of all documents of a row at once; None: each document by itself.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        noise: float | None = None,
        row_multiple: int = 1,
        context: ContextGroup | None = None,
        loss_kernel: LossKernel = "chunked",
        attention_kernel: VarlenKernel | None = None,
    ) -> None:
        super().__init__()
        self._loss_kernel = loss_kernel
        self._attention_kernel = attention_kernel
        self._noise = noise
        self._row_multiple = row_multiple
        self._context = context
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
        counted: Tensor | None = None,
    ) -> Tensor:
        """Sum over supervised positions of ``scale`` times their weight times their cross entropy, as an fp32 scalar.

        Args:
            input_ids: int64 ``[1, tokens]``.
            position_ids: int64 ``[1, tokens]``, from 0 in each document.
            labels: int64 ``[1, tokens]``: the token that follows within the document, or ``IGNORE``.
            documents: how the row is divided.
            scale: one over the weight of the supervised tokens of the whole global batch, or 1.
            weights: float32 ``[1, tokens]``, one for each label; None: all are 1.
            counted: int64 ``[1, tokens]``, 1 for tokens whose experts are counted; None: for none they are.
        """
        row = Row(
            input_ids=input_ids,
            position_ids=position_ids,
            labels=labels,
            weights=weights,
            counted=counted,
            documents=documents,
        ).lengthened(self._row_multiple)
        if self._context is not None:
            row = row.shared(self._context)
        documents = replace(row.documents, kernel=self._attention_kernel)
        inputs = {"input_ids": row.input_ids}
        if self._noise is not None and self.model.training:
            embeddings = self.model.get_input_embeddings()(row.input_ids)
            inputs = {"inputs_embeds": with_noise(embeddings, row.documents, self._noise)}
        with counting(row.counted):
            hidden = self.model.base_model(
                **inputs, position_ids=row.position_ids, attention_mask=None, use_cache=False, documents=documents
            ).last_hidden_state
        supervised = (row.labels[0] != IGNORE).nonzero().squeeze(1)
        factors = row.weights[0, supervised] if row.weights is not None else None
        head, weight = Head.of(self.model)
        trained, targets = hidden[0, supervised], row.labels[0, supervised]
        if self._loss_kernel == "liger" and factors is None and len(targets):
            return summed_by_liger(trained, weight, targets, scale=scale, softcap=head.softcap)
        return summed_cross_entropy(trained, weight, targets, scale=scale, factors=factors, head=head)

    def generate(self, prompts: Sequence[Prompt], how: Generation) -> dict[int, list[int]]:
        """See :func:`skills_pipe.training.models.generate.generate`; sharding gathers the same weights for it."""
        return generate(self.model, prompts, how)


def summed_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    scale: float = 1.0,
    factors: Tensor | None = None,
    head: Head | None = None,
    chunk_elements: int = _CHUNK_ELEMENTS,
) -> Tensor:
    """``scale * sum_i(factors_i * -log softmax(hidden_i @ weight.T)[labels_i])``, summed in fp32, never all logits.

    Gradients are made in the forward pass, chunk by chunk, and only scaled in the backward pass: nothing of the size
    of the logits is kept, and nothing is computed twice. There is no second derivative.

    Args:
        hidden: ``[n, width]``; n may be 0, the loss is then 0 with zero gradients.
        weight: ``[vocabulary, width]``, of the dtype of ``hidden``; where ranks share the vocabulary, the rows of
            this rank's words. The gradient of ``hidden`` is then this rank's part of a sum.
        labels: int64 ``[n]``.
        scale: factor on the loss.
        factors: ``[n]``, factor of each label; None: all are 1. They get no gradient.
        head: of which ``weight`` has the rows; None: all words, whose logits are not capped.
        chunk_elements: number of logits to hold at one time.
    """
    rows = max(1, chunk_elements // weight.shape[0])
    return _SummedCrossEntropy.apply(
        hidden, weight, labels, scale, factors, head or Head(), rows, torch.is_grad_enabled()
    )


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        scale: float,
        factors: Tensor | None,
        head: Head,
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
            logits = head.logits(part, weight)
            normaliser, chosen = head.words.compare(logits, target)
            each = normaliser - chosen
            factor = factors[start : start + rows, None].to(precise) if factors is not None else None
            loss += (each if factor is None else each * factor).sum()
            if not differentiate:
                continue
            steepness = head.steepness(logits)
            slope = logits.sub_(normaliser).exp_()
            head.words.subtract_targets(slope, target)
            slope = slope.mul_(scale if factor is None else factor * scale)
            slope = (slope if steepness is None else slope.mul_(steepness)).to(hidden.dtype)
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
        return grad_hidden * factor, scaled, None, None, None, None, None, None
