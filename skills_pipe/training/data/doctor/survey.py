"""All that is counted of the rows of one use, in one pass over them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from skills_pipe.training.data.build import BAD_ROW
from skills_pipe.training.data.chunk import Recipe
from skills_pipe.training.data.doctor.answers import has_empty_answer
from skills_pipe.training.data.doctor.endings import EndingCounter, Endings
from skills_pipe.training.data.doctor.fingerprints import Known, Repeats, note_repeat, remember, row_fingerprints
from skills_pipe.training.data.inspection.rows import InspectedRow, RowInspector
from skills_pipe.training.data.inspection.selection import Selection
from skills_pipe.training.data.report import DataReport
from skills_pipe.training.data.rows import BadRow

_PERCENTILES: Final = (50, 90, 99, 100)
_COMPARED: Final = 256
_NAMED: Final = 10


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What is known of the rows of one use.

    Attributes:
        selection: the rows that were read.
        report: what training says of them.
        lengths: int64 [documents], tokens of each document with something to train, without a limit.
        kept: int64 [trained documents], tokens of each.
        targets: int64 [trained documents], trained tokens of each.
        answers: answers of a document -> documents.
        faults: the first rows that cannot be used; fault_count: how many there are.
        overlong: where the first documents above the limit stand.
        empty: where the first rows with an empty answer stand; empty_count: how many there are.
        endings: tokens at the ends.
        expects_bos: see :class:`endings.EndingCounter`.
        repeats: rows that are there more than once.
        known: fingerprints of the rows.
    """

    selection: Selection
    report: DataReport
    lengths: NDArray[np.int64]
    kept: NDArray[np.int64]
    targets: NDArray[np.int64]
    answers: Counter[int]
    faults: tuple[BadRow, ...]
    fault_count: int
    overlong: tuple[str, ...]
    empty: tuple[str, ...]
    empty_count: int
    endings: Endings
    expects_bos: bool
    repeats: Repeats
    known: Known

    @property
    def documents_in_all(self) -> int:
        """Documents of all rows, estimated where some were read."""
        return round(self.report.documents / self.selection.share) if self.selection.chosen else 0

    @property
    def tokens_in_all(self) -> int:
        """Tokens of all rows, estimated where some were read."""
        return round(self.report.tokens / self.selection.share) if self.selection.chosen else 0


def survey(selection: Selection, recipe: Recipe, earlier: Known | None = None) -> tuple[Survey, Repeats]:
    """Read the rows and count.

    Args:
        selection: which.
        recipe: how training makes documents of them.
        earlier: rows of another use.

    Returns:
        The survey, and what of the rows is in ``earlier``.
    """
    counter = _Counter(recipe)
    inspector = RowInspector(recipe)
    leaked = Repeats()
    rows = selection.rows()
    for number, row in enumerate(rows):
        inspected = inspector.inspect(row, compare=number < _COMPARED)
        counter.add(inspected)
        if earlier is not None and not isinstance(row, BadRow):
            note_repeat(leaked, earlier, row_fingerprints(row), row.where)
    return counter.survey(selection), leaked


@dataclass
class _Counts:
    counts: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    faults: list[BadRow] = field(default_factory=list)
    fault_count: int = 0
    overlong: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    empty_count: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)


class _Counter:
    def __init__(self, recipe: Recipe) -> None:
        self._limit = recipe.settings.max_length
        self._so_far = _Counts()
        self._endings = EndingCounter(recipe.tokenizer)
        self._known = Known()
        self._repeats = Repeats()

    def add(self, row: InspectedRow) -> None:
        """Count a row."""
        so_far = self._so_far
        so_far.counts.update(row.counts)
        if row.fault is not None:
            so_far.fault_count += 1
            so_far.faults += [row.fault][: _NAMED - len(so_far.faults)]
            return
        if not isinstance(row.row, BadRow):
            found = row_fingerprints(row.row)
            note_repeat(self._repeats, self._known, found, row.where)
            remember(self._known, found, row.where)
            if has_empty_answer(row.row):
                so_far.empty_count += 1
                so_far.empty += [row.where][: _NAMED - len(so_far.empty)]
        so_far.dropped.update(row.dropped)
        for example in row.unlimited:
            so_far.lengths.append(len(example.input_ids))
            if len(example.input_ids) > self._limit:
                so_far.overlong += [row.where][: _NAMED - len(so_far.overlong)]
        for example in row.documents:
            so_far.kept.append(len(example.input_ids))
            trained = example.loss_mask != 0
            so_far.targets.append(int(trained.sum()))
            so_far.answers[int(trained[0]) + int((np.diff(trained.astype(np.int8)) == 1).sum())] += 1
            self._endings.add(example)

    def survey(self, selection: Selection) -> Survey:
        """What was counted."""
        so_far = self._so_far
        kept, targets = np.array(so_far.kept, np.int64), np.array(so_far.targets, np.int64)
        return Survey(
            selection=selection,
            report=self._report(kept, targets),
            lengths=np.array(so_far.lengths, np.int64),
            kept=kept,
            targets=targets,
            answers=so_far.answers,
            faults=tuple(so_far.faults),
            fault_count=so_far.fault_count,
            overlong=tuple(so_far.overlong),
            empty=tuple(so_far.empty),
            empty_count=so_far.empty_count,
            endings=self._endings.found,
            expects_bos=self._endings.expects_bos,
            repeats=self._repeats,
            known=self._known,
        )

    def _report(self, kept: NDArray[np.int64], targets: NDArray[np.int64]) -> DataReport:
        so_far = self._so_far
        faults = {BAD_ROW: so_far.fault_count} if so_far.fault_count else {}
        found = np.percentile(kept, _PERCENTILES, method="inverted_cdf").tolist() if len(kept) else ()
        counts: dict[str, Any] = dict(so_far.counts)
        return DataReport(
            documents=len(kept),
            dropped={**faults, **so_far.dropped},
            tokens=int(kept.sum()),
            targets=int(targets.sum()),
            length_percentiles=dict(zip(_PERCENTILES, map(int, found), strict=False)),
            **counts,
        )
