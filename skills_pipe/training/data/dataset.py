"""The data set of a training run: tokenised documents, held compactly in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skills_pipe.training.data.report import DataReport


@dataclass(frozen=True, kw_only=True)
class Example:
    """One document.

    Attributes:
        input_ids: int32 [n].
        loss_mask: uint8 [n]; 1 where the token is trained, that is predicted from the tokens before it. Never 1 at 0.
    """

    input_ids: NDArray[np.int32]
    loss_mask: NDArray[np.uint8]


class SftDataset:
    """Documents in one array of token ids, one of masks and one of offsets.

    Args:
        token_ids: ids of all documents, one after the other; uint16 or int32.
        loss_mask: uint8, one for each token.
        offsets: int64 [documents + 1], where each document starts, and the number of tokens.
        report: what became of the rows.

    Attributes:
        lengths: int64 [documents], tokens of each document.
        targets: int64 [documents], trained tokens of each document.
    """

    def __init__(
        self,
        token_ids: NDArray[Any],
        loss_mask: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        report: DataReport,
    ) -> None:
        self._token_ids = token_ids
        self._loss_mask = loss_mask
        self._offsets = offsets
        self.report = report
        self.lengths = np.diff(offsets)
        self.targets = np.diff(np.concatenate([[0], np.cumsum(loss_mask, dtype=np.int64)])[offsets])

    @classmethod
    def from_examples(cls, examples: Iterable[Example], report: DataReport | None = None) -> SftDataset:
        """A data set of documents that are tokenised already."""
        kept = list(examples)
        ids = np.concatenate([np.zeros(0, np.int32), *(example.input_ids for example in kept)])
        mask = np.concatenate([np.zeros(0, np.uint8), *(example.loss_mask for example in kept)])
        lengths = [len(example.input_ids) for example in kept]
        return cls(narrow(ids), mask, offsets_of(lengths), report or DataReport(documents=len(kept)))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Example:
        if not -len(self) <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        place = index % len(self)
        part = slice(self._offsets[place], self._offsets[place + 1])
        return Example(input_ids=self._token_ids[part].astype(np.int32), loss_mask=self._loss_mask[part].copy())

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the documents: it changes whenever rows, tokenizer, template or an option change any token or mask.

        The same documents have the same fingerprint, wherever their file lies and however they were made.
        """
        state = hashlib.sha256(self.lengths.astype("<i8").tobytes())
        for start in range(0, len(self._token_ids), 1 << 20):
            part = slice(start, start + (1 << 20))
            state.update(self._token_ids[part].astype("<i4").tobytes())
            state.update(self._loss_mask[part].tobytes())
        return state.hexdigest()


def narrow(token_ids: NDArray[np.int32]) -> NDArray[Any]:
    """The same ids in 16 bits where they fit."""
    return token_ids.astype(np.uint16) if not len(token_ids) or int(token_ids.max()) < 2**16 else token_ids


def offsets_of(lengths: Iterable[int]) -> NDArray[np.int64]:
    """Where each document starts, and the number of tokens; int64 [documents + 1]."""
    return np.cumsum([0, *lengths], dtype=np.int64)
