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

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: object) -> torch.Tensor:
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
        self._seeds = [_row_seed(seed, position) for position in positions]
        self._generators: list[torch.Generator] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:
        """Logits ``[rows, vocabulary]`` with noise; what sampling excluded stays at minus infinity."""
        if not self._generators:
            self._generators = [torch.Generator(scores.device).manual_seed(seed) for seed in self._seeds]
        noise = torch.empty(scores.shape, dtype=torch.float32, device=scores.device)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() - noise.log()


def _row_seed(seed: int, position: int) -> int:
    digest = hashlib.sha256(f"{seed}/{position}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
