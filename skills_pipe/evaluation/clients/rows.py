"""What each row of a generating batch has of its own: the length it may reach, and the noise that it samples with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from transformers.generation.logits_process import LogitsProcessor
from transformers.generation.stopping_criteria import StoppingCriteria


class RowLimits(StoppingCriteria):
    """Ends each row after its own number of new tokens, ``width`` being the padded length of the prompts."""

    def __init__(self, width: int, limits: Sequence[int]) -> None:
        self._width = width
        self._limits = torch.tensor(limits)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: object) -> torch.BoolTensor:
        """Whether each row is at its end."""
        return (input_ids.shape[1] - self._width >= self._limits).to(input_ids.device)


class RowNoise(LogitsProcessor):
    """Adds Gumbel noise to the logits, so that the largest one is a sample from their softmax.

    Source: the Gumbel-max trick, Gumbel 1954; Maddison, Tarlow, Minka 2014, arXiv:1411.0030.

    Args:
        seed: of the run.
        positions: number of the row of data behind each row of the batch; a row's noise depends on these two only.
    """

    def __init__(self, seed: int, positions: Sequence[int]) -> None:
        self._generators = [_generator(seed, position) for position in positions]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Logits ``[rows, vocabulary]`` with noise; what sampling excluded stays at minus infinity."""
        noise = torch.empty(scores.shape, dtype=torch.float32)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() - noise.log().to(scores.device)


def _generator(seed: int, position: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}/{position}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
