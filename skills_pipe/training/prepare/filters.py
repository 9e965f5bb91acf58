"""Processors that drop single rows by their contents."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skills_pipe.errors import ConfigError, DataError, did_you_mean
from skills_pipe.training.prepare.jsonl import Row, read_manifest
from skills_pipe.training.prepare.processor import EntryProcessor, Filter, text_of
from skills_pipe.training.prepare.tally import Tally

_BOXED = re.compile(r"\\boxed\{[^}]*\}")
_PYTHON_BLOCK = re.compile("```[pP]ython")


@dataclass(frozen=True, kw_only=True)
class DropMultiBoxed(Filter):
    r"""Drops solutions with more than one ``\boxed{}``."""

    solution_key: str = "generation"

    def drop_reason(self, row: Row) -> str | None:
        """More than one boxed answer."""
        return "more than one \\boxed{}" if len(_BOXED.findall(text_of(row, self.solution_key))) > 1 else None


@dataclass(frozen=True, kw_only=True)
class DropIncorrectCodeBlocks(Filter):
    """Drops solutions without exactly one Python code block."""

    solution_key: str = "generation"

    def drop_reason(self, row: Row) -> str | None:
        """No code block, or several."""
        blocks = len(_PYTHON_BLOCK.findall(text_of(row, self.solution_key)))
        return None if blocks == 1 else "not exactly one code block"


@dataclass(frozen=True, kw_only=True)
class DropIfRegexMatch(Filter):
    """Drops texts that contain any of the patterns; a pattern is taken literally."""

    regex_patterns: list[str] = field(default_factory=list)
    text_key: str = "generation"

    def drop_reason(self, row: Row) -> str | None:
        """The pattern that was found."""
        text = text_of(row, self.text_key)
        for pattern in self.regex_patterns:
            if pattern in text:
                return f"contains {pattern!r}"
        return None


@dataclass(frozen=True, kw_only=True)
class DropIfRegexNotMatch(Filter):
    """Drops texts that lack any of the patterns; a pattern is taken literally."""

    regex_patterns: list[str] = field(default_factory=list)
    text_key: str = "generation"

    def drop_reason(self, row: Row) -> str | None:
        """The first pattern that is missing."""
        text = text_of(row, self.text_key)
        for pattern in self.regex_patterns:
            if pattern not in text:
                return f"lacks {pattern!r}"
        return None


@dataclass(frozen=True, kw_only=True)
class DropIfEqual(Filter):
    """Drops rows whose value at ``key`` is one of ``values``; a missing key counts as null."""

    key: str
    values: list[Any]

    def drop_reason(self, row: Row) -> str | None:
        """The value that was found."""
        value = row.get(self.key)
        for unwanted in self.values:
            if value == unwanted and isinstance(value, bool) == isinstance(unwanted, bool):
                return f"{self.key} is {unwanted!r}"
        return None


@dataclass(frozen=True, kw_only=True)
class MajorityFilter(Filter):
    """Drops rows whose answer got too few votes; rows without votes stay.

    Args:
        min_majority_votes: votes that the answer needs.
        min_majority_percentage: share of all votes that the answer needs, from 0 to 1.
    """

    min_majority_votes: int = 0
    min_majority_percentage: float = 0.0

    def drop_reason(self, row: Row) -> str | None:
        """Which of the two bounds the votes miss."""
        votes, total = row.get("majority_votes"), row.get("total_votes")
        if votes is None or total is None:
            return None
        if votes < self.min_majority_votes:
            return "too few majority votes"
        return "too small a majority" if votes < total * self.min_majority_percentage else None


@dataclass(frozen=True, kw_only=True)
class RemoveContaminated(Filter):
    """Drops problems that a contamination check found in a test set.

    Args:
        contamination_file: JSON lines with the problem at ``check_key`` and a flag ``contaminated``.
        check_key: key of the problem, in the data and in the file.
    """

    contamination_file: str | None = None
    check_key: str = "problem"
    _contaminated: frozenset[str] = field(init=False, repr=False, default=frozenset())

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.contamination_file is None:
            raise ConfigError(
                "filters.remove_contaminated needs a list of contaminated problems",
                where="contamination_file",
                fix="set ++contamination_file=FILE",
            )
        object.__setattr__(self, "_contaminated", self._load(Path(self.contamination_file)))

    def drop_reason(self, row: Row) -> str | None:
        """The problem is on the list."""
        return "contaminated" if text_of(row, self.check_key) in self._contaminated else None

    def _load(self, path: Path) -> frozenset[str]:
        problems = set()
        for number, item in enumerate(read_manifest(path), 1):
            missing = [key for key in ("contaminated", self.check_key) if key not in item]
            if missing:
                raise DataError(
                    f"entry {number} has no {missing[0]!r} but {', '.join(item)}",
                    where=str(path),
                    fix=did_you_mean(missing[0], item),
                )
            if item["contaminated"]:
                problems.add(item[self.check_key])
        return frozenset(problems)


@dataclass(frozen=True, kw_only=True)
class RemoveLenOutliers(EntryProcessor):
    """Drops rows whose text at ``property_key`` is too short or too long.

    Args:
        property_key: key of the text.
        min_length: shortest length that stays, in tokens (in characters with ``use_chars_for_min_length``); no bound
            when null.
        max_length: longest length that stays, in tokens; no bound when null.
        tokenizer: folder or name of a Hugging Face tokenizer; needed wherever tokens are counted.
        use_chars_for_min_length: count characters for ``min_length``.
    """

    property_key: str = "generation"
    min_length: int | None = None
    max_length: int | None = None
    tokenizer: str | None = None
    use_chars_for_min_length: bool = False
    _lengths: Any = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        where = f"{type(self).__name__} of {self.property_key!r}"
        if self.min_length is None and self.max_length is None:
            raise ConfigError(
                "a length filter without bounds keeps everything", where=where, fix="set its min or max length"
            )
        if self._needs_tokens():
            if self.tokenizer is None:
                raise ConfigError("lengths in tokens need a tokenizer", where=where, fix="set ++tokenizer=PATH")
            from skills_pipe.training.prepare.chat import TokenCounter

            object.__setattr__(self, "_lengths", TokenCounter(self.tokenizer))

    def apply(self, rows: list[Row], tally: Tally) -> list[Row]:
        """Keep the rows within the bounds."""
        texts = [text_of(row, self.property_key) for row in rows]
        tokens = self._lengths(texts) if self._lengths is not None else [0] * len(rows)
        shortest = self.min_length if self.min_length is not None else 0
        kept = []
        for row, text, length in zip(rows, texts, tokens, strict=True):
            if (len(text) if self.use_chars_for_min_length else length) < shortest:
                tally.dropped[f"{self.property_key} too short"] += 1
            elif self.max_length is not None and length > self.max_length:
                tally.dropped[f"{self.property_key} too long"] += 1
            else:
                kept.append(row)
        return kept

    def _needs_tokens(self) -> bool:
        return self.max_length is not None or not self.use_chars_for_min_length
