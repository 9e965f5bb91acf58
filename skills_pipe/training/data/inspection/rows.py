"""What becomes of one row: the very documents that training makes of it, and those that a longer limit would give."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from skills_pipe.training.data.chunk import ChunkEncoder, EncodedChunk, Recipe
from skills_pipe.training.data.dataset import Example
from skills_pipe.training.data.rows import BadRow, Row


@dataclass(frozen=True, kw_only=True)
class InspectedRow:
    """One row and its documents.

    Attributes:
        row: as it was read.
        where: file and line.
        fault: why it cannot be used, None where it can.
        documents: what is trained.
        unlimited: the documents as they would be without a limit of their length.
        dropped: reason -> documents left out.
        counts: see :class:`chunk.EncodedChunk`.
    """

    row: Row
    where: str
    fault: BadRow | None
    documents: tuple[Example, ...]
    unlimited: tuple[Example, ...]
    dropped: Mapping[str, int]
    counts: Mapping[str, int]


class RowInspector:
    """Makes documents of rows one by one, as training does; a fault is a finding here and never raised.

    Args:
        recipe: of the training run.
    """

    def __init__(self, recipe: Recipe) -> None:
        settings = replace(
            recipe.settings,
            on_bad_row="skip",
            overlong="drop" if recipe.settings.overlong == "error" else recipe.settings.overlong,
        )
        self._limit = settings.max_length
        self._limited = ChunkEncoder(replace(recipe, settings=settings))
        self._unlimited = ChunkEncoder(
            replace(recipe, settings=replace(settings, max_length=sys.maxsize, overlong="drop"))
        )

    def inspect(self, row: Row, *, compare: bool = False) -> InspectedRow:
        """The documents of a row; ``compare``: see :meth:`ChunkEncoder.encode`."""
        free = self._unlimited.encode([row], compare=compare)
        kept = self._limited.encode([row], compare=compare) if (free.lengths > self._limit).any() else free
        return InspectedRow(
            row=row,
            where=row.where,
            fault=free.faults[0] if free.faults else None,
            documents=documents(kept),
            unlimited=documents(free),
            dropped=Counter(kept.dropped),
            counts=Counter(kept.counts),
        )


def documents(chunk: EncodedChunk) -> tuple[Example, ...]:
    """The documents of a chunk, apart."""
    found = []
    start = 0
    for length in chunk.lengths.tolist():
        part = slice(start, start + length)
        found.append(Example(input_ids=chunk.token_ids[part], loss_mask=chunk.loss_mask[part]))
        start += length
    return tuple(found)
