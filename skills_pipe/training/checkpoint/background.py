"""Writing checkpoints while training goes on: the step waits for a copy in memory only."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from skills_pipe.training.checkpoint.failures import is_lack_of_memory
from skills_pipe.training.checkpoint.ranks import Group, everywhere, on_all, talking_in
from skills_pipe.training.checkpoint.snapshot import HostBuffers, Snapshot, States


@dataclass(frozen=True, kw_only=True)
class Written:
    """A save that ended well.

    Attributes:
        step: of the checkpoint.
        seconds: that the writing took.
    """

    step: int
    seconds: float


class BackgroundWriter:
    """Writes one snapshot at a time in a thread of its own; made and called on every rank.

    The thread does most of its work without Python's lock, in writes and hashes. It talks to the other ranks in a
    group of its own: messages of training and of saving must not meet.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._group = Group.new()
        self._buffers = HostBuffers()
        self._reserving: Future[None] | None = None
        self._writing: Future[Written] | None = None

    @property
    def busy(self) -> bool:
        """Whether a save was begun and its end not yet told; the same on every rank."""
        return self._writing is not None

    def reserve(self, states: Callable[[], States]) -> None:
        """Begin to take the memory for copies of what ``states`` gives, at the first call; later ones do nothing."""
        if self._reserving is None and (self.busy or self._has_thread()):
            self._reserving = self._thread.submit(self._buffers.reserve, states())

    def begin(self, snapshot: Snapshot, write: Callable[[Snapshot], object]) -> list[int]:
        """Copy a snapshot of live tensors and let ``write`` have the copy in the background.

        The save before must have been told by :meth:`finish`.

        Returns:
            the ranks that lack the memory for a copy, the same on every rank; where there are such, nothing was begun.
        """
        ready = on_all(lambda: self._has_memory(snapshot.states))
        if not all(ready):
            return [rank for rank, has in enumerate(ready) if not has]
        held = self._buffers.hold(snapshot)
        self._writing = self._thread.submit(self._write, held, write)
        return []

    def has_ended(self) -> bool:
        """Whether the save under way has ended on all ranks, well or not; False without one."""
        return self._writing is not None and everywhere(self._writing.done())

    def finish(self) -> Written | None:
        """Wait for the save under way; None without one.

        Raises:
            CheckpointError: it could not be written.
        """
        if self._writing is None:
            return None
        writing, self._writing = self._writing, None
        return writing.result()

    def close(self) -> None:
        """End the thread, once the save under way was told."""
        self._thread.shutdown()

    def _has_memory(self, states: States) -> bool:
        """Whether this rank has the buffers for copies of ``states``; else it has none any more."""
        if not self._has_thread():
            self._buffers.release()
            return False
        try:
            if self._reserving is not None:
                self._reserving.result()
            self._buffers.reserve(states)
        except (MemoryError, RuntimeError) as error:
            if not is_lack_of_memory(error):
                raise
            self._buffers.release()
            return False
        return True

    def _has_thread(self) -> bool:
        """Whether there is memory for the thread itself, which starts with its first work."""
        try:
            self._thread.submit(int).result()
        except RuntimeError as error:
            if not is_lack_of_memory(error):
                raise
            return False
        return True

    def _write(self, held: Snapshot, write: Callable[[Snapshot], object]) -> Written:
        began = time.monotonic()
        with talking_in(self._group):
            write(held)
        return Written(step=held.info.total_steps, seconds=time.monotonic() - began)
