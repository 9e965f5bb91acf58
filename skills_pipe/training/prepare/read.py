"""The first processor: reads generations or finished data sets, chooses rows by correctness, removes repeated ones."""

from __future__ import annotations

import glob
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from skills_pipe.artifacts.progress import Progress, ProgressReporter
from skills_pipe.errors import ConfigError, DataError, OptionError, did_you_mean
from skills_pipe.training.prepare.jsonl import Row, decode_row, fingerprint
from skills_pipe.training.prepare.processor import BATCH_ROWS, Batch, Processor, Workspace
from skills_pipe.training.prepare.tally import Tally

_ALWAYS_KEPT = ("symbolic_correct", "judgement", "reasoning_content", "finish_reason")
"""Kept beside the input and output, since correctness, formatting and the end of the turn depend on them."""


@dataclass(frozen=True, kw_only=True)
class ReadData(Processor):
    """Reads JSON lines of generations (``input_files``) and of finished data (``preprocessed_dataset_files``).

    Args:
        input_files: glob patterns of generations, separated by commas, else by spaces; or a list of patterns.
        preprocessed_dataset_files: the same for data that is taken without a look at its correctness.
        input_key: key of the problem.
        output_key: key of the solution; without it only problems are read, and correctness plays no part.
        skip_first: lines to pass over at the start of each file.
        add_correct: take solutions that are marked as correct.
        add_incorrect: take solutions that are marked as incorrect.
        add_unlabeled: take all solutions, marked or not.
        use_judgement: go by the text of ``judgement`` instead of the flag ``symbolic_correct``.
        keys_to_keep: keys that stay in a row; all of them, and the name of a file of
            generations as ``filename``, when absent.
        deduplicate: keep only the first of rows with the same problem and solution.
        on_bad_row: ``error`` stops at a line that is not a row with these texts; ``skip`` counts and passes over it.
    """

    input_files: str | list[str] | None = None
    preprocessed_dataset_files: str | list[str] | None = None
    input_key: str = "question"
    output_key: str | None = None
    skip_first: int = 0
    add_correct: bool = True
    add_incorrect: bool = False
    add_unlabeled: bool = False
    use_judgement: bool = False
    keys_to_keep: list[str] | None = None
    deduplicate: bool = True
    on_bad_row: str = "error"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.input_files and not self.preprocessed_dataset_files:
            raise OptionError(
                "there is nothing to read", fix="set ++input_files=PATTERNS or ++preprocessed_dataset_files=PATTERNS"
            )
        if self.output_key is not None and not (self.add_correct or self.add_incorrect or self.add_unlabeled):
            raise OptionError(
                "add_correct, add_incorrect and add_unlabeled are all false, so every row would be dropped",
                fix="set one of them to true",
            )
        if self.on_bad_row not in ("error", "skip"):
            raise ConfigError(f"on_bad_row is error or skip, not {self.on_bad_row!r}", where="on_bad_row")
        if self.skip_first < 0:
            raise ConfigError(f"skip_first is {self.skip_first}, below zero", where="skip_first")

    def stream(self, batches: Iterable[Batch], workspace: Workspace) -> Iterator[Batch]:
        """Rows of all files; what earlier processors may have sent is not looked at."""
        raw = find_files(self.input_files, option="input_files")
        finished = find_files(self.preprocessed_dataset_files, option="preprocessed_dataset_files")
        files = [(path, True) for path in raw] + [(path, False) for path in finished]
        return self._read(files, workspace.tally(type(self).__name__))

    def _read(self, files: list[tuple[Path, bool]], tally: Tally) -> Iterator[Batch]:
        """Batches of rows from files, each with a flag that says whether its rows are labelled."""
        progress = _ReadingProgress([path for path, _ in files])
        seen: set[bytes] = set()
        batch: Batch = []
        start = time.perf_counter()
        for path, labelled in files:
            for row in self._read_file(path, tally, progress, labelled=labelled):
                if self.deduplicate and self._repeats(row, seen):
                    tally.dropped["repeated"] += 1
                    continue
                tally.kept += 1
                batch.append(row)
                if len(batch) == BATCH_ROWS:
                    tally.seconds += time.perf_counter() - start
                    progress.report(rows=tally.read)
                    yield batch
                    batch, start = [], time.perf_counter()
        tally.seconds += time.perf_counter() - start
        if batch:
            yield batch

    def _read_file(self, path: Path, tally: Tally, progress: _ReadingProgress, *, labelled: bool) -> Iterator[Row]:
        kept_keys = self._kept_keys()
        dropped = tally.dropped
        with open(path, "rb") as file:
            for number, line in enumerate(file):
                tally.read += 1
                progress.bytes += len(line)
                if number < self.skip_first:
                    dropped["among skip_first"] += 1
                    continue
                try:
                    row = self._parse(line)
                    reason = self._drop_reason(row, labelled=labelled)
                    if reason is None:
                        self._check_texts(row)
                except ValueError as error:
                    if self.on_bad_row == "error":
                        raise DataError(
                            f"not a usable row: {error}",
                            where=f"{path}:{number + 1}",
                            fix="mend it, or pass over such rows with ++on_bad_row=skip",
                        ) from error
                    reason = "bad row"
                if reason is not None:
                    dropped[reason] += 1
                elif kept_keys is None:
                    yield row | {"filename": str(path)} if labelled else row
                else:
                    yield {key: value for key, value in row.items() if key in kept_keys}

    def _parse(self, line: bytes) -> Row:
        if line.isspace():
            return {}
        return decode_row(line)

    def _drop_reason(self, row: Row, *, labelled: bool) -> str | None:
        """Why a row is not taken, None when it is."""
        if not row:
            return "empty (incomplete generation)"
        if not labelled or self.output_key is None or self.add_unlabeled:
            return None
        if self.use_judgement:
            if type(row.get("judgement")) is not str:
                return "no judgement (incomplete generation)"
            correct = is_correct_judgement(row["judgement"])
        elif "symbolic_correct" not in row:
            return "no symbolic_correct (incomplete generation)"
        else:
            correct = bool(row["symbolic_correct"])
        if correct:
            return None if self.add_correct else "correct"
        return None if self.add_incorrect else "incorrect"

    def _check_texts(self, row: Row) -> None:
        for key in (self.input_key, self.output_key):
            if key is not None and type(row.get(key)) is not str:
                if key in row:
                    raise ValueError(f"{key!r} holds {type(row[key]).__name__}, not a text")
                hint = did_you_mean(key, row)
                raise ValueError(f"it has no {key!r} but {', '.join(row)}" + (f"; {hint}" if hint else ""))

    def _kept_keys(self) -> frozenset[str] | None:
        if self.keys_to_keep is None:
            return None
        texts = [self.input_key] if self.output_key is None else [self.input_key, self.output_key, *_ALWAYS_KEPT]
        return frozenset([*self.keys_to_keep, *texts])

    def _repeats(self, row: Row, seen: set[bytes]) -> bool:
        second = "" if self.output_key is None else row[self.output_key]
        before = len(seen)
        seen.add(fingerprint(row[self.input_key], second))
        return len(seen) == before


def is_correct_judgement(judgement: str) -> bool:
    """Whether a judge's answer ends in ``Judgement: Yes``; an answer in another form counts as no."""
    _, found, verdict = judgement.rpartition("Judgement:")
    return bool(found) and verdict.strip().lower().startswith("yes")


def find_files(patterns: str | list[str] | None, *, option: str) -> list[Path]:
    """Files of glob patterns: those of each pattern sorted, the patterns in their order.

    Raises:
        OptionError: patterns that no file matches, all of them at once.
    """
    found: list[Path] = []
    missing = []
    for pattern in split_patterns(patterns):
        files = [Path(name) for name in sorted(glob.glob(pattern, recursive=True)) if Path(name).is_file()]  # noqa: PTH207
        found += files
        if not files:
            missing.append(pattern)
    if missing:
        names = ", ".join(repr(pattern) for pattern in missing)
        raise OptionError(f"no file matches {names}", where=option, fix=f"look at the path; this is {Path.cwd()}")
    return found


def split_patterns(patterns: str | list[str] | None) -> list[str]:
    """Patterns of an option: separated by commas if there is one, else by spaces."""
    if patterns is None:
        return []
    if isinstance(patterns, str):
        patterns = patterns.split("," if "," in patterns else None)
    return [pattern.strip() for pattern in patterns if pattern.strip()]


class _ReadingProgress:
    """Reports how much of the input has been read."""

    def __init__(self, files: list[Path]) -> None:
        self.bytes = 0
        self._total = sum(path.stat().st_size for path in files)
        self._reporter = ProgressReporter()

    def report(self, *, rows: int) -> None:
        estimate = rows * self._total // max(1, self.bytes)
        self._reporter.report(Progress(done=rows, total=estimate, unit="rows", note="reading"))
