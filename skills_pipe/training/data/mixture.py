"""Training data of several datasets in shares that the user chose."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from skills_pipe.training.data.dataset import Example, SftDataset
from skills_pipe.training.data.report import DataReport

_PERCENTILES: Final = (50, 90, 99, 100)


@dataclass(frozen=True)
class Share:
    """How much of a dataset an epoch has.

    Attributes:
        dataset: its documents.
        weight: how often an epoch has them: of a dataset with n documents, exactly ``round(weight * n)``. 2 is each
            document twice; 1.5 is each once, and one half of them, always the same, once more.
        seed: of the choice of those.
    """

    dataset: SftDataset
    weight: float
    seed: int

    def documents(self) -> NDArray[np.int64]:
        """Numbers of the documents of an epoch, those that are there more than once repeated; at least one."""
        count = len(self.dataset)
        copies, rest = divmod(max(1, round(self.weight * count)), count)
        chosen = np.random.default_rng(self.seed).permutation(count)[:rest]
        return np.sort(np.concatenate([np.repeat(np.arange(count), copies), chosen])).astype(np.int64)


class Mixture(SftDataset):
    """The documents of an epoch of several datasets, read where they are; otherwise like any data set."""

    def __init__(self, shares: Sequence[Share]) -> None:
        self._parts = [share.dataset for share in shares]
        chosen = [share.documents() for share in shares]
        self._part = np.repeat(np.arange(len(shares), dtype=np.int32), [len(documents) for documents in chosen])
        self._document = np.concatenate(chosen)
        pairs = list(zip(self._parts, chosen, strict=True))
        self.lengths = np.concatenate([part.lengths[documents] for part, documents in pairs])
        self.targets = np.concatenate([part.targets[documents] for part, documents in pairs])
        self.report = self._report()

    def __getitem__(self, index: int) -> Example:
        if not -len(self) <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        return self._parts[int(self._part[index])][int(self._document[index])]

    @property
    def weighted(self) -> bool:
        """Whether trained tokens of any part have weights of their own."""
        return any(part.weighted for part in self._parts)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the parts and of what is taken of each."""
        state = hashlib.sha256("\n".join(part.fingerprint for part in self._parts).encode())
        state.update(self._part.astype("<i4").tobytes() + self._document.astype("<i8").tobytes())
        return state.hexdigest()

    def _report(self) -> DataReport:
        """Counts of the rows of all parts, and of the documents that an epoch has of them."""
        reports = [part.report for part in self._parts]
        dropped: Counter[str] = Counter()
        for report in reports:
            dropped.update(report.dropped)
        counts = [field.name for field in fields(DataReport) if isinstance(field.default, int)]
        percentiles = np.percentile(self.lengths, _PERCENTILES, method="inverted_cdf")
        return replace(
            DataReport(**{name: sum(getattr(report, name) for report in reports) for name in counts}),
            dropped=dict(dropped),
            bad_rows=tuple(row for report in reports for row in report.bad_rows),
            tokenized_by="; ".join(dict.fromkeys(report.tokenized_by for report in reports if report.tokenized_by)),
            documents=len(self.lengths),
            tokens=int(self.lengths.sum()),
            targets=int(self.targets.sum()),
            length_percentiles=dict(zip(_PERCENTILES, map(int, percentiles), strict=True)),
        )
