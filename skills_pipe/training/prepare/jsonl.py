"""One row of a JSON-lines file: exact reading, exact writing, and the fingerprint by which repeated rows are found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from skills_pipe.errors import DataError

Row = dict[str, Any]

_LARGEST_EXACT = float(2**63)


def decode(line: bytes) -> Any:
    """The JSON value of a line, with every integer exact.

    Raises:
        ValueError: the line is not JSON; the message says what is wrong with it.
    """
    value = orjson.loads(line)
    # orjson turns integers of more than 64 bits into floats; the standard library keeps their digits.
    return json.loads(line) if _has_huge_float(value) else value


def encode(value: Any) -> bytes:
    """A value as one line of UTF-8 JSON, without the newline."""
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer of more than 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def decode_row(line: bytes) -> Row:
    """The JSON object of a line.

    Raises:
        ValueError: the line is no JSON, or JSON but no object.
    """
    value = decode(line)
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object was expected, not {type(value).__name__}")
    return value


def read_manifest(path: Path) -> Iterator[Any]:
    """The values of a JSON-lines file one after the other; blank lines are passed over.

    Raises:
        DataError: the file is missing, or a line is not JSON (with its number).
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.isspace():
                    continue
                try:
                    yield decode(line)
                except ValueError as error:
                    raise DataError(f"the line is not JSON: {error}", where=f"{path}:{number}") from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError("there is no such manifest", where=str(path), fix="run the processor that writes it") from error


def fingerprint(first: str, second: str = "") -> bytes:
    """128-bit hash of a pair of texts; equal pairs and only they (but for 1 in 2**64) have equal fingerprints."""
    # The length keeps ("ab", "c") apart from ("a", "bc").
    return hashlib.sha256(f"{len(first)}:{first}{second}".encode()).digest()[:16]


def _has_huge_float(value: Any) -> bool:
    """Whether a number lies where an integer may have been rounded to a float."""
    kind = type(value)
    if kind is float:
        return not -_LARGEST_EXACT < value < _LARGEST_EXACT
    if kind is dict:
        value = value.values()
    elif kind is not list:
        return False
    for item in value:
        kind = type(item)
        if kind is not str and kind is not int and _has_huge_float(item):
            return True
    return False
