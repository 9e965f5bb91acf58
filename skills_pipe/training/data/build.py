"""Sources -> a data set: read, template, mask, tokenise, limit, count; kept on disk where there is a place for it."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from transformers import PreTrainedTokenizerBase

from skills_pipe.errors import DataError
from skills_pipe.training.data.bpe.verify import Verdict, judge
from skills_pipe.training.data.cache.content import Contents
from skills_pipe.training.data.cache.files import DocumentWriter, open_documents
from skills_pipe.training.data.cache.key import cache_key
from skills_pipe.training.data.cache.store import Store
from skills_pipe.training.data.chunk import (
    NOTHING_TRAINED,
    TOO_LONG,
    ChunkEncoder,
    DataSettings,
    EncodedChunk,
    Recipe,
    mask_rules,
)
from skills_pipe.training.data.dataset import SftDataset
from skills_pipe.training.data.fast_form import highest_id
from skills_pipe.training.data.progress import TokenizingProgress
from skills_pipe.training.data.report import DataReport
from skills_pipe.training.data.rows import BadRow
from skills_pipe.training.data.sources import DataSource, read_rows
from skills_pipe.training.data.template import ChatTemplate
from skills_pipe.training.data.workers.pool import encode_in_order
from skills_pipe.training.data.workers.task import tasks

__all__ = ["BAD_ROW", "BuildOptions", "DataSettings", "build_dataset", "mask_rules"]

BAD_ROW: Final = "bad row"

_SHOWN: Final = 10
_SAMPLE: Final = 256
"""Rows on which tiktoken has to agree with the tokenizer, besides the probes."""

_PERCENTILES: Final = (50, 90, 99, 100)


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How a data set is made; none of it changes what is made.

    Attributes:
        workers: processes that tokenise; 0 or 1: this one.
        cache: folder that keeps it for other jobs and ranks, None: nothing is kept.
        again: make it although it is kept.
        progress: show how far it is, where that takes longer than a moment.
        tiktoken: let tiktoken do the work where it gives the tokenizer's own ids.
        tiktoken_from: bytes of files, as they are on disk, from which on it is worth to find out whether it does: that
            takes up to a second, as tokenising so much without it.
    """

    workers: int = 1
    cache: Path | None = None
    again: bool = False
    progress: bool = False
    tiktoken: bool = True
    tiktoken_from: int = 5_000_000


def build_dataset(
    sources: Sequence[DataSource],
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate,
    settings: DataSettings,
    options: BuildOptions | None = None,
) -> SftDataset:
    """Read, template, mask and tokenise all rows of ``sources``, in their order.

    Its arrays are mapped from files: of the cache, or of a temporary folder that is gone when the data set is.

    Raises:
        DataError: a file cannot be read, rows are bad (up to ten are named), a document is too long where that is an
            error, or nothing is left to train on.
    """
    options = options or BuildOptions()
    job = _Job(tuple(sources), Recipe(tokenizer=tokenizer, template=template, settings=settings), options)
    if options.cache is not None:
        contents = Contents(options.cache / "contents")
        before = job.digests(contents)
        key = cache_key(job.sources, job.recipe, contents)
        if key is not None:

            def make(folder: Path) -> None:
                job.write(folder)
                job.check_unchanged(before, contents)

            return Store(options.cache / "tokenised").get(key, make, again=options.again)
    with tempfile.TemporaryDirectory(prefix="tokenised-") as folder:
        job.write(Path(folder))
        made = open_documents(Path(folder))
    if made is None:
        raise RuntimeError("the data set that was just made cannot be read")
    # The mapping outlives the names of its files.
    return made


@dataclass(frozen=True)
class _Job:
    """Rows and what is to become of them."""

    sources: tuple[DataSource, ...]
    recipe: Recipe
    options: BuildOptions

    def write(self, folder: Path) -> None:
        """Make the data set in an empty folder."""
        tally = _Tally(self.recipe.settings)
        judge = cache(self._judge)
        chunks = encode_in_order(
            lambda: replace(self.recipe, fast=judge().structure), tasks(self.sources), workers=self.options.workers
        )
        names = [str(source.path) for source in self.sources]
        with (
            DocumentWriter(folder, highest_id(self.recipe.tokenizer) + 1) as writer,
            TokenizingProgress(shown=self.options.progress) as progress,
        ):
            for chunk in chunks:
                tally.add(chunk)
                writer.add(chunk)
                progress.update(rows=tally.counts["rows_read"], tokens=writer.tokens)
            report = replace(tally.report(writer, ", ".join(names)), tokenized_by=judge().reason)
            writer.seal(report, {"sources": names, "tokenizer": self.recipe.tokenizer.name_or_path})

    def digests(self, contents: Contents) -> list[str]:
        """Hash of what each file holds."""
        return [contents.digest(source.path) for source in self.sources]

    def check_unchanged(self, before: Sequence[str], contents: Contents) -> None:
        """See that what was read is what the data set will be found by.

        Raises:
            DataError: a file was written to meanwhile.
        """
        for source, then, now in zip(self.sources, before, self.digests(contents), strict=True):
            if then != now:
                raise DataError(
                    "the file was changed while it was read",
                    where=str(source.path),
                    fix="start again when nobody writes to it",
                )

    def _judge(self) -> Verdict:
        if not self.options.tiktoken:
            return Verdict(structure=None, reason="tokenizers: data.use_tiktoken is false")
        if self._size() < self.options.tiktoken_from:
            return Verdict(structure=None, reason="tokenizers: the data are few")
        rows = islice(chain.from_iterable(read_rows(source) for source in self.sources), _SAMPLE)
        return judge(self.recipe.tokenizer, ChunkEncoder(self.recipe).texts(rows))

    def _size(self) -> int:
        """Bytes of the files, of each once."""
        return sum(path.stat().st_size for path in {source.path for source in self.sources})


class _Tally:
    """What became of the rows so far; refuses them where they are bad."""

    def __init__(self, settings: DataSettings) -> None:
        self._refuses = settings.on_bad_row == "error"
        self._limit = settings.max_length
        self._faults: list[BadRow] = []
        self._bad = 0
        self.counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    def add(self, chunk: EncodedChunk) -> None:
        """Count a chunk.

        Raises:
            DataError: as many rows are bad as are worth naming, and bad rows are an error.
        """
        self.counts += chunk.counts
        self._dropped += chunk.dropped
        self._bad += len(chunk.faults)
        self._faults += chunk.faults[: _SHOWN - len(self._faults)]
        if self._refuses and len(self._faults) == _SHOWN:
            raise self._refusal()

    def report(self, written: DocumentWriter, names: str) -> DataReport:
        """The report of all rows; ``names`` says for messages where they came from.

        Raises:
            DataError: rows are bad, and that is an error; or nothing is left to train on.
        """
        if self._bad and self._refuses:
            raise self._refusal()
        if self._bad:
            self._dropped[BAD_ROW] = self._bad
        if not written.documents:
            raise self._nothing_left(names)
        percentiles = np.percentile(written.lengths(), _PERCENTILES, method="inverted_cdf")
        return DataReport(
            documents=written.documents,
            dropped=dict(self._dropped),
            bad_rows=tuple(self._named()),
            tokens=written.tokens,
            targets=written.targets,
            length_percentiles=dict(zip(_PERCENTILES, map(int, percentiles), strict=True)),
            **cast(Mapping[str, Any], self.counts),
        )

    def _nothing_left(self, names: str) -> DataError:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in self._dropped.items())
        fixes = {
            TOO_LONG: f"raise policy.max_total_sequence_length, and data.max_input_seq_length where that is set (the "
            f"limit is {self._limit} tokens), or set data.overlong=truncate",
            NOTHING_TRAINED: "give the rows answers: the text of the assistant is what is trained",
            BAD_ROW: "mend the data: without data.on_bad_row=skip the first bad rows are named",
        }
        most = max(self._dropped, key=lambda reason: self._dropped[reason], default=None)
        return DataError(
            f"no document is left of {self.counts['rows_read']} rows" + (f" ({reasons})" if reasons else ""),
            where=names,
            fix=fixes.get(most) if most else None,
        )

    def _named(self) -> list[str]:
        return [f"{fault.where}: {fault.what}" for fault in self._faults]

    def _refusal(self) -> DataError:
        shown = self._named()
        advice = "mend the data, or set ++data.on_bad_row=skip to leave such rows out"
        if len(shown) == 1:
            return DataError(self._faults[0].what, where=self._faults[0].where, fix=advice)
        count = f"{_SHOWN} or more" if len(shown) == _SHOWN else str(len(shown))
        return DataError(f"{count} rows cannot be used\n  " + "\n  ".join(shown) + "\n" + advice)
