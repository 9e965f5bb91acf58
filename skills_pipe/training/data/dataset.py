"""The data set of a training run: tokenised documents, in memory or mapped from files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skills_pipe.training.data.report import DataReport

_PART = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Example:
    """One document.

    Attributes:
        input_ids: int32 [n].
        loss_mask: [n]; not 0 where the token is trained, that is predicted from the tokens before it. Never at 0.
            uint8 of 0 and 1, or float32 where tokens have other weights.
    """

    input_ids: NDArray[np.int32]
    loss_mask: NDArray[Any]


class SftDataset:
    """Documents in one array of token ids, one of masks and one of offsets.

    Args:
        token_ids: ids of all documents, one after the other; uint16, int32 or uint32.
        loss_mask: uint8 or float32, one for each token.
        offsets: int64 [documents + 1], where each document starts, and the number of tokens.
        report: what became of the rows.
        targets: see below; counted when not given.
        fingerprint: see below; computed when not given.

    Attributes:
        lengths: int64 [documents], tokens of each document.
        targets: integers [documents], trained tokens of each document.
    """

    def __init__(
        self,
        token_ids: NDArray[Any],
        loss_mask: NDArray[Any],
        offsets: NDArray[np.int64],
        report: DataReport,
        *,
        targets: NDArray[Any] | None = None,
        fingerprint: str | None = None,
    ) -> None:
        self._token_ids = token_ids
        self._loss_mask = loss_mask
        self._offsets = offsets
        self.report = report
        self.lengths = np.diff(offsets)
        self.targets = count_targets(loss_mask, offsets) if targets is None else targets
        if fingerprint is not None:
            self.fingerprint = fingerprint

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
        return Example(input_ids=self._token_ids[part].astype(np.int32), loss_mask=np.array(self._loss_mask[part]))

    @property
    def weighted(self) -> bool:
        """Whether trained tokens have weights of their own."""
        return self._loss_mask.dtype != np.uint8

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the documents: it changes whenever rows, tokenizer, template or an option change any token or mask.

        The same documents have the same fingerprint, wherever their file lies and however they were made.
        """
        state = Fingerprint()
        state.add_lengths(self.lengths)
        for start in range(0, len(self._token_ids), _PART):
            part = slice(start, start + _PART)
            state.add_tokens(self._token_ids[part], self._loss_mask[part])
        return state.hexdigest()


class Fingerprint:
    """Takes in documents part by part; how they are cut into parts does not matter."""

    def __init__(self) -> None:
        self._ids, self._mask, self._lengths = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()

    def add_tokens(self, token_ids: NDArray[Any], loss_mask: NDArray[Any]) -> None:
        """Take in token ids and their masks."""
        self._ids.update(token_ids.astype("<i4").tobytes())
        # A weight of 1 is the same, written in either way.
        self._mask.update(loss_mask.astype("<f4").tobytes())

    def add_lengths(self, lengths: NDArray[Any]) -> None:
        """Take in the lengths of documents."""
        self._lengths.update(lengths.astype("<i8").tobytes())

    def hexdigest(self) -> str:
        """Of all that was taken in."""
        return hashlib.sha256(self._ids.digest() + self._mask.digest() + self._lengths.digest()).hexdigest()


def narrow(token_ids: NDArray[np.int32]) -> NDArray[Any]:
    """The same ids in 16 bits where they fit."""
    return token_ids.astype(np.uint16) if not len(token_ids) or int(token_ids.max()) < 2**16 else token_ids


def offsets_of(lengths: Iterable[int]) -> NDArray[np.int64]:
    """Where each document starts, and the number of tokens; int64 [documents + 1]."""
    return np.cumsum([0, *lengths], dtype=np.int64)


def count_targets(loss_mask: NDArray[Any], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Trained tokens of each document; int64 [documents]."""
    return np.diff(np.concatenate([[0], np.cumsum(loss_mask != 0, dtype=np.int64)])[offsets])
