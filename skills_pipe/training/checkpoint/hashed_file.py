"""A file that is written and hashed while what comes next is being computed."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from skills_pipe.artifacts.content_hash import ContentHasher
from skills_pipe.artifacts.manifest import FileRecord

_BUFFERS = 4
_FLUSH_BYTES = 256 * 2**20
"""After so many bytes the disk is made to begin, instead of being given everything at the end."""


class HashedFile:
    """A new file for writing from front to back.

    What is written is collected in one of a few buffers; once it is full, a thread writes it and another one hashes it,
    both without Python's lock. A model has many small tensors: a hand-over of each would cost more than the work.

    Args:
        path: is made, or replaced.
        piece: bytes of a buffer.
    """

    def __init__(self, path: Path, *, piece: int) -> None:
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 (closed by __exit__)
        self._hasher, self._size, self._unflushed = ContentHasher(), 0, 0
        self._writer, self._counter = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._buffers = [bytearray(piece) for _ in range(_BUFFERS)]
        self._pending: list[tuple[Future[None], ...]] = [() for _ in range(_BUFFERS)]
        self._next, self._filled = 0, 0

    def __enter__(self) -> Self:
        return self

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``, which may be overwritten as soon as this returns.

        Raises:
            OSError: a write before it failed.
        """
        view = memoryview(data)
        while view:
            buffer = self._free_buffer()
            part = memoryview(buffer)[self._filled : self._filled + len(view)]
            part[:] = view[: len(part)]
            self._filled += len(part)
            self._size += len(part)
            view = view[len(part) :]
            if self._filled == len(buffer):
                self._hand_over()

    def record(self) -> FileRecord:
        """Size and hash of what was written so far, once it is written.

        Raises:
            OSError: a write failed.
        """
        self._hand_over()
        for pending in self._pending:
            _wait(pending)
        return FileRecord(size=self._size, hash=self._hasher.text())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown(cancel_futures=kind is not None)
        self._counter.shutdown(cancel_futures=kind is not None)
        self._file.close()

    def _free_buffer(self) -> bytearray:
        """The buffer that is being filled, once what it held before is written and hashed."""
        if not self._filled:
            _wait(self._pending[self._next])
        return self._buffers[self._next]

    def _hand_over(self) -> None:
        if not self._filled:
            return
        part = memoryview(self._buffers[self._next])[: self._filled]
        self._pending[self._next] = (
            self._writer.submit(self._append, part),
            self._counter.submit(self._hasher.update, part),
        )
        self._next, self._filled = (self._next + 1) % _BUFFERS, 0

    def _append(self, part: memoryview) -> None:
        descriptor, rest = self._file.fileno(), part
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        self._unflushed += len(part)
        if self._unflushed >= _FLUSH_BYTES:
            os.fdatasync(descriptor)
            self._unflushed = 0


def _wait(pending: tuple[Future[None], ...]) -> None:
    for done in pending:
        done.result()
