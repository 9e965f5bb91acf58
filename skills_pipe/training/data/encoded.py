"""Documents as they were tokenised, before anything is done about their length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skills_pipe.training.data.dataset import Example
from skills_pipe.training.data.rows import CutEnd


@dataclass(frozen=True, kw_only=True)
class Cuttable:
    """Tokens ``start`` to ``stop`` of a document, which may be shortened at one end."""

    start: int
    stop: int
    end: CutEnd


@dataclass(frozen=True, kw_only=True)
class Encoded(Example):
    """A document as it was tokenised, before anything is done about its length.

    Attributes:
        cuttable: stretches that its format allows to shorten, in order.
        straddling: tokens that reach over a border of what is trained; they are trained.
    """

    cuttable: tuple[Cuttable, ...] = ()
    straddling: int = 0

    def without_first(self, count: int) -> Encoded:
        """The document without its first tokens."""
        mask = self.loss_mask[count:].copy()
        mask[:1] = 0
        return Encoded(
            input_ids=self.input_ids[count:],
            loss_mask=mask,
            cuttable=tuple(
                Cuttable(start=max(c.start - count, 0), stop=max(c.stop - count, 0), end=c.end) for c in self.cuttable
            ),
            straddling=self.straddling,
        )


@dataclass(frozen=True, kw_only=True)
class EncodedTogether:
    """Many of them. T is the number of their tokens, n that of documents.

    Attributes:
        ids: int32 [T].
        mask: [T], see :class:`dataset.Example`.
        ends: int64 [n + 1]: 0, and where each document ends.
        cuttable, straddling: as of :class:`Encoded`, by the number of the document, of those that have any.
    """

    ids: NDArray[np.int32]
    mask: NDArray[Any]
    ends: NDArray[np.int64]
    cuttable: Mapping[int, tuple[Cuttable, ...]] = field(default_factory=dict)
    straddling: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, documents: Sequence[Encoded]) -> EncodedTogether:
        """From documents that were tokenised one by one."""
        lengths = [len(document.input_ids) for document in documents]
        return cls(
            ids=np.concatenate([np.zeros(0, np.int32), *(document.input_ids for document in documents)]),
            mask=np.concatenate([np.zeros(0, np.uint8), *(document.loss_mask for document in documents)]),
            ends=np.cumsum([0, *lengths], dtype=np.int64),
            cuttable={at: each.cuttable for at, each in enumerate(documents) if each.cuttable},
            straddling={at: each.straddling for at, each in enumerate(documents) if each.straddling},
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each document; int64 [n]."""
        return np.diff(self.ends)

    def trained(self) -> NDArray[np.int64]:
        """Trained tokens of each document; int64 [n]."""
        return np.diff(np.concatenate([[0], np.cumsum(self.mask != 0, dtype=np.int64)])[self.ends])

    def each(self) -> list[Encoded]:
        """The documents one by one."""
        ends = self.ends.tolist()
        return [
            Encoded(
                input_ids=self.ids[start:end],
                loss_mask=self.mask[start:end],
                cuttable=self.cuttable.get(number, ()),
                straddling=self.straddling.get(number, 0),
            )
            for number, (start, end) in enumerate(pairwise(ends))
        ]
