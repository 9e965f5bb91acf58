"""The first rows of training data, as far as a few kilobytes show them; the trainer reads all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from skills_pipe.artifacts.rows import Form, RowKeys, UnfitRow, parse_row, row_form, starts_array

_ROWS = 20


def faults_in(head: bytes, keys: RowKeys, *, whole: bool) -> list[str]:
    """What is wrong with the first rows of a file, one line each.

    Args:
        head: how the file begins.
        keys: by which its rows are read.
        whole: this is all of it, so its last line is not cut off.
    """
    if not head.strip():
        return ["the file is empty"]
    if starts_array(head):
        return []  # it cannot be read in part
    faults = ((number, _fault(line, keys)) for number, line in islice(_lines(head, whole=whole), _ROWS))
    return [f"line {number}: {fault}" for number, fault in faults if fault]


@dataclass(frozen=True, kw_only=True)
class Forms:
    """What the first rows of a file consist of.

    Attributes:
        found: forms of those that can be used, in their order.
        settled: whether these are all that are looked at, and not only those that the first kilobytes hold.
    """

    found: tuple[Form, ...] = ()
    settled: bool = False


def forms_in(head: bytes, keys: RowKeys, *, whole: bool, rows: int) -> Forms:
    """Forms of the first ``rows`` rows; other arguments as of :func:`faults_in`."""
    if starts_array(head):
        return Forms()
    forms, seen = [], 0
    for _, line in islice(_lines(head, whole=whole), rows):
        seen += 1
        with contextlib.suppress(UnfitRow):
            forms.append(row_form(parse_row(line), keys))
    return Forms(found=tuple(forms), settled=whole or seen == rows)


def _lines(head: bytes, *, whole: bool) -> Iterator[tuple[int, bytes]]:
    lines = head.split(b"\n")
    for number, line in enumerate(lines if whole else lines[:-1], start=1):
        if line.strip():
            yield number, line


def _fault(line: bytes, keys: RowKeys) -> str | None:
    try:
        row_form(parse_row(line), keys)
    except UnfitRow as problem:
        return str(problem)
    return None
