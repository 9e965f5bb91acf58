"""What makes logits of hidden states, but for its weight: whose words they are, and whether they are capped."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skills_pipe.training.models.words import Words


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """An output layer without a bias.

    Attributes:
        words: of which there are logits here.
        softcap: logits ``l`` become ``softcap * tanh(l / softcap)`` (Gemma 2); None: they stay.
    """

    words: Words = field(default_factory=Words)
    softcap: float | None = None

    @classmethod
    def of(cls, model: PreTrainedModel) -> tuple[Head, Tensor]:
        """The head of a model, plain or sharded, and this rank's rows ``[words, width]`` of its weight."""
        words, weight = Words.of(model.get_output_embeddings().weight)
        return cls(words=words, softcap=getattr(model.config, "final_logit_softcapping", None)), weight

    def logits(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """``[n, words]`` of hidden states ``[n, width]``, in fp32 at least."""
        logits = hidden @ weight.T
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits if self.softcap is None else logits.div_(self.softcap).tanh_().mul_(self.softcap)

    def steepness(self, logits: Tensor) -> Tensor | None:
        """How much each logit grows with what it was before it was capped; None: as much."""
        return None if self.softcap is None else 1.0 - (logits / self.softcap).square_()
