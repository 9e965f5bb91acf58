"""Processors that see all solutions of a problem together, or all rows of the data."""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from skills_pipe.errors import ConfigError
from skills_pipe.training.prepare.jsonl import Row, fingerprint
from skills_pipe.training.prepare.processor import Batch, Processor, Workspace, batched, text_of
from skills_pipe.training.prepare.spool import Spool
from skills_pipe.training.prepare.tally import Tally


class Groups(Iterable[Batch]):
    """Groups of rows in the order in which their first rows came; an entry is the list of a group's rows.

    The rows lie in a spool; in memory is only which group each belongs to.
    """

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self._group_of_row = array("Q")
        self.sizes = array("Q")

    def append(self, rows: list[Row], groups: Iterable[int]) -> None:
        """Add rows with the numbers of their groups; numbers start at 0 and a new one is the next."""
        self.spool.append(rows)
        for group in groups:
            if group == len(self.sizes):
                self.sizes.append(0)
            self.sizes[group] += 1
            self._group_of_row.append(group)

    def order(self) -> list[int]:
        """Numbers of the rows in the spool, group after group."""
        return sorted(range(len(self._group_of_row)), key=self._group_of_row.__getitem__)

    def __iter__(self) -> Iterator[Batch]:
        rows = (row for batch in self.spool.read(self.order()) for row in batch)
        return batched([next(rows) for _ in range(size)] for size in self.sizes)


@dataclass(frozen=True, kw_only=True)
class GroupSamples(Processor):
    """Brings the rows with the same ``group_key`` together: an entry becomes the list of their rows."""

    group_key: str = "input"

    def stream(self, batches: Iterable[Batch], workspace: Workspace) -> Groups:
        """The groups, in the order in which their first rows came."""
        tally = workspace.tally(type(self).__name__)
        groups = Groups(Spool(workspace.scratch))
        numbers: dict[bytes, int] = {}
        for batch in batches:
            start = time.perf_counter()
            keys = [fingerprint(text_of(row, self.group_key)) for row in batch]
            groups.append(batch, [numbers.setdefault(key, len(numbers)) for key in keys])
            tally.seconds += time.perf_counter() - start
            tally.read += len(batch)
        tally.kept = tally.read
        return groups


@dataclass(frozen=True, kw_only=True)
class CodeTextFilter(Processor):
    """Chooses between the solutions of a problem that use code and those that do not.

    Args:
        filter_type: ``all`` keeps code only; ``majority_code`` keeps text beside it where code is not the majority;
            ``majority_text`` keeps whichever is the majority; ``any_code`` keeps text only where there is no code.
        code_tags: name of packaged code tags, or a YAML file with ``code_begin``.
        solution_key: key of the solution.
    """

    filter_type: str
    code_tags: str | None = None
    solution_key: str = "generation"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.filter_type not in _CHOICES:
            raise ConfigError(
                f"{self.filter_type!r} is no code_text_filter", where="filter_type", fix=f"use {', '.join(_CHOICES)}"
            )
        if self.code_tags is None:
            raise ConfigError(
                "code_text_filter needs to know how code begins",
                where="code_tags",
                fix="set ++code_tags to qwen, llama3, nemotron, openmath or a YAML file",
            )

    def stream(self, batches: Iterable[Batch], workspace: Workspace) -> Iterator[Batch]:
        """Groups without the solutions that are not wanted; code stands first in a group."""
        from skills_pipe.training.prepare.prompt import load_code_tags

        code_begin = load_code_tags(self.code_tags or "").code_begin
        return self._choose_all(batches, code_begin, workspace.tally(type(self).__name__))

    def _choose_all(self, batches: Iterable[Batch], code_begin: str, tally: Tally) -> Iterator[Batch]:
        for batch in batches:
            start = time.perf_counter()
            kept = [self._choose(group, code_begin, tally) for group in batch]
            tally.seconds += time.perf_counter() - start
            yield kept

    def _choose(self, group: list[Row], code_begin: str, tally: Tally) -> list[Row]:
        code = [row for row in group if code_begin in text_of(row, self.solution_key)]
        text = [row for row in group if code_begin not in row[self.solution_key]]
        with_code, with_text = _CHOICES[self.filter_type](len(code), len(group))
        tally.read += len(group)
        tally.dropped["with code"] += 0 if with_code else len(code)
        tally.dropped["without code"] += 0 if with_text else len(text)
        chosen = (code if with_code else []) + (text if with_text else [])
        tally.kept += len(chosen)
        return chosen


@dataclass(frozen=True, kw_only=True)
class ShuffleAndDownsampleData(Processor):
    """Takes groups apart again, shuffles the rows and keeps some of them.

    The order is that of Python's ``random.seed(random_seed); random.shuffle(rows)``.

    Args:
        random_seed: seed of the order.
        do_shuffle: shuffle; otherwise the rows stay in the order of the groups.
        num_samples: rows to keep, all when null; needs ``sampling_method``.
        sampling_method: ``random`` keeps the first rows after shuffling; ``fair`` takes one row of each group in turn.
    """

    random_seed: int = 42
    do_shuffle: bool = True
    num_samples: int | None = None
    sampling_method: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampling_method not in (None, "random", "fair"):
            raise ConfigError(
                f"{self.sampling_method!r} is no method of downsampling",
                where="downsampling_method",
                fix="use random, fair or null",
            )
        if (self.sampling_method is None) != (self.num_samples is None):
            raise ConfigError(
                "downsampling needs a method and a number",
                where="downsampling_method and num_output_samples",
                fix="set both or neither",
            )
        if self.num_samples is not None and self.num_samples < 1:
            raise ConfigError(f"cannot keep {self.num_samples} rows", where="num_output_samples")

    def stream(self, batches: Iterable[Batch], workspace: Workspace) -> Iterator[Batch]:
        """Rows in their final order."""
        tally = workspace.tally(type(self).__name__)
        groups = batches if isinstance(batches, Groups) else _regroup(batches, Spool(workspace.scratch))
        return self._sample(groups, tally)

    def _sample(self, groups: Groups, tally: Tally) -> Iterator[Batch]:
        start = time.perf_counter()
        order = self._order(groups)
        tally.read, tally.kept = len(groups.spool), len(order)
        if tally.kept < tally.read:
            tally.dropped["downsampled"] = tally.read - tally.kept
        for batch in groups.spool.read(order):
            tally.seconds += time.perf_counter() - start
            yield batch
            start = time.perf_counter()
        groups.spool.close()

    def _order(self, groups: Groups) -> list[int]:
        order = groups.order()
        number = self.num_samples
        if self.sampling_method == "fair" and number is not None and number < len(order):
            order = take_in_turn(order, groups.sizes, number)
        if self.do_shuffle:
            random.Random(self.random_seed).shuffle(order)
        return order[:number] if self.sampling_method == "random" else order


def take_in_turn(order: list[int], sizes: Iterable[int], number: int) -> list[int]:
    """``number`` rows: the first of every group, then the second of every group that has one, and so on."""
    sizes = list(sizes)
    starts = [0, *accumulate(sizes)]
    taken: list[int] = []
    round_number = 0
    groups = list(range(len(sizes)))
    while groups and len(taken) < number:
        groups = [group for group in groups if sizes[group] > round_number]
        taken += [order[starts[group] + round_number] for group in groups[: number - len(taken)]]
        round_number += 1
    return taken


def _regroup(batches: Iterable[Batch], spool: Spool) -> Groups:
    """Groups from entries that are lists of rows, or single rows."""
    groups = Groups(spool)
    number = 0
    for batch in batches:
        for entry in batch:
            rows = entry if isinstance(entry, list) else [entry]
            if rows:
                groups.append(rows, [number] * len(rows))
                number += 1
    return groups


_CHOICES: dict[str, Callable[[int, int], tuple[bool, bool]]] = {
    # (solutions with code, solutions) -> keep those with code, keep those without
    "all": lambda code, total: (True, False),
    "majority_code": lambda code, total: (True, code <= total // 2),
    "majority_text": lambda code, total: (code > total // 2, code <= total // 2),
    "any_code": lambda code, total: (code > 0, code == 0),
}
