"""Lengths of rows that learn: the third part of a DoRA adapter."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RowLengths(nn.Module):
    """Lengths that the rows of a matrix are scaled to: ``weight``, float32 ``[rows]``.

    They compute in float32 whatever the rest of the model computes in. In bfloat16 a length is up to 0.2 % off, which
    changes a fresh model, and what the lengths learn is mostly smaller than that. A module of their own, because that
    is what FSDP gives a precision to.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, device=device, dtype=torch.float32))

    def forward(self, present: Tensor) -> Tensor:
        """Factors for rows that have the lengths ``present``; both float32 ``[rows]``.

        The division is done here because FSDP has the whole of ``weight`` in memory only during this call.
        """
        return self.weight / present
