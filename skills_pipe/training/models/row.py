"""One row of packed documents as the model is given it, and what ranks that share its tokens make of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from skills_pipe.training.data.batches import IGNORE
from skills_pipe.training.models.attention import Documents
from skills_pipe.training.models.context import ContextGroup


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """Tokens and what belongs to each of them.

    Attributes:
        input_ids: int64 ``[1, tokens]``.
        position_ids: int64 ``[1, tokens]``, from 0 in each document.
        labels: int64 ``[1, tokens]``: the token that follows within the document, or ``IGNORE``.
        weights: float32 ``[1, tokens]``, one for each label; None: all are 1.
        counted: int64 ``[1, tokens]``, 1 for tokens whose experts are counted; None: for none they are.
        documents: how the row is divided; of the whole row also where this rank has some of its tokens only.
    """

    input_ids: Tensor
    position_ids: Tensor
    labels: Tensor
    weights: Tensor | None
    counted: Tensor | None = None
    documents: Documents

    def lengthened(self, multiple: int) -> Row:
        """The same row, with a document without labels at its end that makes the number of tokens divisible."""
        missing = -self.input_ids.shape[1] % multiple
        if missing == 0:
            return self
        offsets, lengths = self.documents.cu_seqlens, self.documents.lengths
        positions = torch.arange(missing, device=self.position_ids.device)[None]
        return replace(
            self,
            input_ids=functional.pad(self.input_ids, (0, missing)),
            position_ids=torch.cat([self.position_ids, positions], dim=1),
            labels=functional.pad(self.labels, (0, missing), value=IGNORE),
            weights=None if self.weights is None else functional.pad(self.weights, (0, missing)),
            counted=None if self.counted is None else functional.pad(self.counted, (0, missing)),
            documents=Documents(lengths=(*lengths, missing), cu_seqlens=torch.cat([offsets, offsets[-1:] + missing])),
        )

    def shared(self, context: ContextGroup) -> Row:
        """This rank's tokens of the row, where the ranks of a group share it."""
        share = context.share(self.documents.lengths, self.input_ids.device)
        return Row(
            input_ids=share.own(self.input_ids),
            position_ids=share.own(self.position_ids),
            labels=share.own(self.labels),
            weights=None if self.weights is None else share.own(self.weights),
            counted=None if self.counted is None else share.own(self.counted),
            documents=replace(self.documents, share=share),
        )
