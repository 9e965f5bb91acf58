"""Texts -> tokens, masks and batches, as trlX's trainer for NeMo makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from skills_pipe.errors import DataError
from skills_pipe.training.data.dataset import Example

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Collation:
    """How the tokens of a text become a document.

    Attributes:
        max_length: most tokens of a document.
        bos_id: token put in front; None: none.
        eos_id: token that ends a document; None: none.
        train_eos: whether the model learns to write it.
    """

    max_length: int
    bos_id: int | None = None
    eos_id: int | None = None
    train_eos: bool = True

    def with_ends(self, ids: Sequence[int]) -> list[int]:
        """The tokens with what begins and ends them, at most ``max_length``; the end is never cut off."""
        begin = [] if self.bos_id is None else [self.bos_id]
        end = [] if self.eos_id is None else [self.eos_id]
        return [*[*begin, *ids][: self.max_length - len(end)], *end]

    def mask(self, ids: Sequence[int]) -> list[float]:
        """1 for the tokens of a document that are trained."""
        trained = [1.0] * len(ids)
        if self.eos_id is not None and not self.train_eos:
            trained[-1] = 0.0
        return trained

    def example(self, ids: Sequence[int]) -> Example:
        """A document to train on; nothing stands before its first token, so that one is not trained."""
        whole = self.with_ends(ids)
        mask = np.array(self.mask(whole), dtype=np.uint8)
        mask[:1] = 0
        return Example(input_ids=np.array(whole, dtype=np.int32), loss_mask=mask)

    def batch(self, items: Sequence[Sequence[int]], *, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and masks padded to ``max_length``: int64 and float32 ``[items, max_length]``; padding has the mask 0."""
        rows = [self.with_ends(ids) for ids in items]
        ids = torch.full((len(rows), self.max_length), pad_id, dtype=torch.int64)
        mask = torch.zeros(len(rows), self.max_length)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = torch.tensor(self.mask(row))
        return ids, mask


class ShuffledCyclicSequence(Generic[T]):
    """``new_length`` items of ``data`` in a random order, each as often as any other, or once more."""

    def __init__(self, new_length: int, data: Sequence[T], seed: int) -> None:
        self.new_length = new_length
        self.data = data
        self._order = torch.randperm(new_length, generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return self.new_length

    def __getitem__(self, index: int) -> T:
        return self.data[int(self._order[index]) % len(self.data)]


def tokenise(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, seq_length: int) -> list[list[int]]:
    """Tokens of texts, without special ones, cut to ``seq_length`` at the tokenizer's ``truncation_side``.

    Raises:
        DataError: there are none, or they are dialogues.
    """
    if not texts:
        raise DataError("there are no samples", where="samples", fix="give a list of texts")
    if not all(isinstance(text, str) for text in texts):
        raise DataError("dialogues are not supported by NeMoSFTTrainer", where="samples", fix="give texts")
    encoded = tokenizer(list(texts), truncation=True, max_length=seq_length, add_special_tokens=False)
    return cast("list[list[int]]", encoded["input_ids"])
