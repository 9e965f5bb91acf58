"""The contract of a processor: entries stream in from a manifest and out to the next one.

It is the contract of the Speech Data Processor toolkit (``input_manifest_file``, ``output_manifest_file``,
``process()``, ``test_cases``), with one addition: :meth:`Processor.stream` lets consecutive processors hand their
entries over in memory, so that a manifest is written only where one is asked for.
"""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any

from skills_pipe.artifacts import atomic
from skills_pipe.artifacts.names import manifest_path
from skills_pipe.errors import ConfigError, DataError, did_you_mean
from skills_pipe.training.prepare.jsonl import Row, encode, read_manifest
from skills_pipe.training.prepare.tally import Tally

Batch = list[Any]
"""Some consecutive entries: rows, or groups of rows after :class:`GroupSamples`."""

BATCH_ROWS = 1000


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """What a run shares among its processors: a folder for temporary files, and the figures."""

    scratch: Path
    tallies: list[Tally] = field(default_factory=list)

    def tally(self, name: str) -> Tally:
        """A new line of figures."""
        tally = Tally(name=name)
        self.tallies.append(tally)
        return tally


@dataclass(frozen=True, kw_only=True)
class Processor(ABC):
    """A step of data preparation.

    Args:
        input_manifest_file: JSON lines to read; the output of the processor before, when absent.
        output_manifest_file: JSON lines to write; not written when absent, but for the last processor.
        test_cases: ``{"input": row, "output": row or null}`` items that are checked before any work starts.
    """

    input_manifest_file: str | None = None
    output_manifest_file: str | None = None
    test_cases: list[dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        if self.input_manifest_file and self.input_manifest_file == self.output_manifest_file:
            raise ConfigError(
                "input_manifest_file and output_manifest_file are the same file",
                where=type(self).__name__,
                fix="give the output another name",
            )

    @abstractmethod
    def stream(self, batches: Iterable[Batch], workspace: Workspace) -> Iterable[Batch]:
        """The entries that this processor makes of ``batches``; its figures go to a tally of ``workspace``."""

    def process(self) -> None:
        """Read ``input_manifest_file`` and publish ``output_manifest_file``."""
        if self.output_manifest_file is None:
            raise ConfigError("output_manifest_file is not set", where=type(self).__name__)
        source = batched(read_manifest(Path(self.input_manifest_file))) if self.input_manifest_file else iter(())
        output = Path(self.output_manifest_file)
        write_manifest(output, self.stream(source, Workspace(scratch=output.parent)))

    def test(self) -> None:
        """Check ``test_cases``, which only processors of single entries have.

        Raises:
            ConfigError: a case gives another result than it says.
        """
        if self.test_cases:
            raise ConfigError(
                "this processor takes no test_cases, since it does not work entry by entry", where=type(self).__name__
            )


@dataclass(frozen=True, kw_only=True)
class EntryProcessor(Processor):
    """A processor that looks at one row at a time."""

    @abstractmethod
    def apply(self, rows: list[Row], tally: Tally) -> list[Row]:
        """The rows that go on, changed in place where need be; counts what is dropped and modified."""

    def stream(self, batches: Iterable[Batch], workspace: Workspace) -> Iterator[Batch]:
        """Apply the processor batch by batch."""
        return self._apply_all(batches, workspace.tally(type(self).__name__))

    def _apply_all(self, batches: Iterable[Batch], tally: Tally) -> Iterator[Batch]:
        for batch in batches:
            start = time.perf_counter()
            kept = self.apply(batch, tally)
            tally.seconds += time.perf_counter() - start
            tally.read += len(batch)
            tally.kept += len(kept)
            if kept:
                yield kept

    def test(self) -> None:
        """Run every test case; one written with the default key of a text is read with the key that is set."""
        for case in self.test_cases or []:
            if set(case) != {"input", "output"}:
                raise ConfigError(f"a test case has the keys input and output, not {sorted(case)}", where=self._where())
            given = self._with_keys_in_use(copy.deepcopy(case["input"]))
            expected = [] if case["output"] is None else [self._with_keys_in_use(case["output"])]
            result = self.apply([copy.deepcopy(given)], Tally(name="test"))
            if result != expected:
                raise ConfigError(
                    f"a test case fails: {given} gives {result[0] if result else None}, not {case['output']}",
                    where=self._where(),
                )

    def _with_keys_in_use(self, row: Row) -> Row:
        for option in fields(self):
            if option.name.endswith("_key") and option.default is not MISSING:
                key = getattr(self, option.name)
                if key != option.default and option.default in row and key not in row:
                    row = {key if name == option.default else name: value for name, value in row.items()}
        return row

    def _where(self) -> str:
        return f"{type(self).__name__}.test_cases"


@dataclass(frozen=True, kw_only=True)
class Filter(EntryProcessor):
    """A processor that drops rows and changes none."""

    @abstractmethod
    def drop_reason(self, row: Row) -> str | None:
        """Why a row is dropped, in a few words; None keeps it."""

    def apply(self, rows: list[Row], tally: Tally) -> list[Row]:
        """Keep the rows without a reason to drop them."""
        kept = []
        for row in rows:
            reason = self.drop_reason(row)
            if reason is None:
                kept.append(row)
            else:
                tally.dropped[reason] += 1
        return kept


@dataclass(frozen=True, kw_only=True)
class Editor(EntryProcessor):
    """A processor that changes rows and drops none."""

    @abstractmethod
    def edit(self, row: Row) -> bool:
        """Change the row in place; True when it is different now."""

    def apply(self, rows: list[Row], tally: Tally) -> list[Row]:
        """Edit every row."""
        tally.modified += sum(map(self.edit, rows))
        return rows


def text_of(row: Row, key: str) -> str:
    """The text at ``key`` of a row.

    Raises:
        DataError: the row has no such text.
    """
    value = row.get(key)
    if type(value) is not str:
        problem = f"{key!r} holds no text but {value!r}" if key in row else f"a row has no {key!r}"
        raise DataError(problem, where=f"keys: {', '.join(row)}", fix=did_you_mean(key, row))
    return value


def batched(entries: Iterable[Any]) -> Iterator[Batch]:
    """Entries in batches of a thousand."""
    iterator = iter(entries)
    while batch := list(islice(iterator, BATCH_ROWS)):
        yield batch


def write_manifest(path: Path, batches: Iterable[Batch]) -> int:
    """Publish entries as JSON lines by rename, without the seal of what lay there before; the number of entries."""
    count = 0
    with atomic.publish_file(path) as temporary:
        with open(temporary, "wb") as file:
            for batch in batches:
                count += len(batch)
                file.writelines(encode(entry) + b"\n" for entry in batch)
        # The seal of an older file must not stand beside a newer one, not even for a moment.
        manifest_path(path).unlink(missing_ok=True)
    return count


def keep_copy(path: Path, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Pass entries on and publish a copy of them at ``path`` once the last one has passed."""
    with atomic.publish_file(path) as temporary:
        with open(temporary, "wb") as file:
            for batch in batches:
                file.writelines(encode(entry) + b"\n" for entry in batch)
                yield batch
        manifest_path(path).unlink(missing_ok=True)
