"""NEFTune: noise on the embeddings of the tokens while training (Jain et al. 2023, arXiv:2310.05914)."""

from __future__ import annotations

import torch
from torch import Tensor

from skills_pipe.training.models.attention import Documents


def with_noise(embeddings: Tensor, documents: Documents, alpha: float) -> Tensor:
    """``embeddings + alpha / sqrt(length * width) * u`` with ``u`` uniform in (-1, 1), drawn anew for each number.

    ``length`` is that of the document that a token belongs to, so that a document in a packed row gets the noise which
    it would get alone; for a row of one document it is the formula of transformers and TRL.

    Args:
        embeddings: ``[1, tokens, width]``.
        documents: how the row is divided.
        alpha: strength, the paper's 5 to 15.
    """
    lengths = torch.tensor(documents.lengths, device=embeddings.device)
    magnitudes = alpha / torch.sqrt(lengths * embeddings.shape[-1])
    per_token = torch.repeat_interleave(magnitudes, lengths)[None, :, None]
    noise = torch.empty_like(embeddings).uniform_(-1.0, 1.0)
    return embeddings + noise * per_token.to(embeddings.dtype)
