"""Tokens on which a kernel for the loss is tried: a few dozen, with the output layer's sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skills_pipe.training.models.head import Head
from skills_pipe.training.models.loss import summed_cross_entropy

_SCALE = 0.37
"""Factor on the loss: one that is left out shows."""

_TOKENS, _GROUPS = 96, 8
"""Losses are compared group by group: one sum may be right by chance, though it was rounded on the way."""

_WIDTH = 1024
"""Most of the width that is tried. Kernels depend on the words; a width of thousands would cost gigabytes."""

_STEEP = 0.5
"""Part of the cap that logits have on average, so that many are capped."""


class SummedLoss(Protocol):
    """What is tried: :func:`skills_pipe.training.models.liger.summed_by_liger`, or ours."""

    def __call__(
        self, hidden: Tensor, weight: Tensor, labels: Tensor, *, scale: float, softcap: float | None = None
    ) -> Tensor:
        """The summed loss of hidden states ``[n, width]``."""
        ...


def ours(hidden: Tensor, weight: Tensor, labels: Tensor, *, scale: float, softcap: float | None = None) -> Tensor:
    """:func:`skills_pipe.training.models.loss.summed_cross_entropy` in the form of what is tried."""
    return summed_cross_entropy(hidden, weight, labels, scale=scale, head=Head(softcap=softcap))


def loss_cases(model: PreTrainedModel, dtype: torch.dtype, device: torch.device) -> Iterator[LossCase]:
    """One with all words of the model's output layer, and its width up to :data:`_WIDTH`."""
    vocabulary, width = model.get_output_embeddings().weight.shape
    yield LossCase.of(
        (vocabulary, min(width, _WIDTH)), getattr(model.config, "final_logit_softcapping", None), dtype, device
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class LossCase:
    """An output layer of random weights, for :mod:`skills_pipe.training.models.kernels.agreement`.

    Attributes:
        hidden: ``[n, width]``.
        weight: ``[vocabulary, width]``.
        labels: int64 ``[n]``.
        softcap: of the logits.
    """

    hidden: Tensor
    weight: Tensor
    labels: Tensor
    softcap: float | None = None
    name: ClassVar[str] = "some tokens"

    @classmethod
    def of(cls, shape: tuple[int, int], softcap: float | None, dtype: torch.dtype, device: torch.device) -> LossCase:
        """One with a weight of this shape."""
        vocabulary, width = shape
        generator = torch.Generator(device).manual_seed(0)
        spread = max(1.0, _STEEP * softcap) if softcap is not None else 1.0
        hidden = torch.randn(_TOKENS, width, generator=generator, device=device) * spread
        # In its own type from the start: in float32 as well it would be the largest tensor of all.
        weight = torch.randn(shape, generator=generator, device=device, dtype=dtype) * width**-0.5
        labels = torch.randint(vocabulary, (_TOKENS,), generator=generator, device=device)
        return cls(hidden=hidden.to(dtype), weight=weight, labels=labels, softcap=softcap)

    def __call__(self, loss: SummedLoss, dtype: torch.dtype) -> Mapping[str, Tensor]:
        """Losses and gradients by ``loss``.

        Raises:
            TypeError: it gives a loss in half precision.
        """
        hidden, weight = (each.to(dtype, copy=True).requires_grad_() for each in (self.hidden, self.weight))
        size = _TOKENS // _GROUPS
        with torch.no_grad():
            values = [
                loss(part, weight, labels, scale=_SCALE, softcap=self.softcap)
                for part, labels in zip(hidden.split(size), self.labels.split(size), strict=True)
            ]
        value = loss(hidden, weight, self.labels, scale=_SCALE, softcap=self.softcap)
        if torch.finfo(value.dtype).bits < torch.finfo(torch.float32).bits:
            raise TypeError(f"the loss is summed in {value.dtype}")
        gradients = torch.autograd.grad(value, (hidden, weight))
        return {
            "loss": torch.stack([*values, value.detach()]),
            "gradient of hidden states": gradients[0],
            "gradient of the output layer": gradients[1],
        }
