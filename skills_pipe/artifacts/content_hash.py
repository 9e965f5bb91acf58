"""The hash that says whether the contents of a file are still what was written.

It is XXH3 with 128 bits (https://github.com/Cyan4973/xxHash): it finds damage and equal files as surely as sha256 and
takes a thirtieth of its time, so that hashing a checkpoint costs no more than reading it. It is no defence against
somebody who writes a file for the purpose of having a given hash; who may do so in an output folder may replace its
manifest too.

As text it is ``xxh3:`` and 32 hexadecimal digits. Manifests of before have the 64 digits of a sha256, and are checked
by it. So does what is written where xxhash is not installed, as in an image of before.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType
from typing import Any

from skills_pipe.errors import CheckpointError

xxhash: ModuleType | None
try:
    import xxhash
except ModuleNotFoundError:
    xxhash = None

_PREFIX = "xxh3:"


class ContentHasher:
    """Takes the hash of bytes that arrive one after the other."""

    def __init__(self) -> None:
        self._state = _state()

    def update(self, data: bytes | memoryview) -> None:
        """Append ``data``; of large data without Python's lock."""
        self._state.update(data)

    def text(self) -> str:
        """The hash of what was appended so far."""
        return _text(self._state)


def hash_file(path: Path) -> str:
    """The hash of a file's contents.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return _text(hashlib.file_digest(file, _state))


def has_hash(path: Path, recorded: str) -> bool:
    """Whether the contents of a file have the hash that was recorded, by whichever method.

    Raises:
        OSError: it cannot be read.
        CheckpointError: there is nothing to take such a hash with.
    """
    if recorded.startswith(_PREFIX):
        if xxhash is None:
            raise CheckpointError(
                "its hash is XXH3, which needs xxhash",
                where=str(path),
                fix="make the image anew, or add `pip install xxhash` to --installation_command",
            )
        return hash_file(path) == recorded
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == recorded


def _state() -> Any:
    return xxhash.xxh3_128() if xxhash is not None else hashlib.sha256()


def _text(state: Any) -> str:
    return f"{_PREFIX if xxhash is not None else ''}{state.hexdigest()}"
