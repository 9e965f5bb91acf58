"""Ports of this machine that are ours for as long as they are held."""

from __future__ import annotations

import fcntl
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

# Below those that the kernel hands out by itself: one of them could be taken between our look and the daemon's.
_RANGE = range(17000, 32000)


class Ports:
    """Ports that no other process of the tests takes while this object lives."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.gettempdir()) / "skills-pipe-test-ports"
        self._folder.mkdir(exist_ok=True)
        self._locks: list[IO[str]] = []

    def take(self) -> int:
        """A port on which nothing listens."""
        while True:
            port = random.choice(_RANGE)
            lock = open(self._folder / str(port), "w")  # noqa: SIM115 -- held until given back
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            except OSError:
                lock.close()
                continue
            self._locks.append(lock)
            return port

    def give_back(self) -> None:
        """Let others have them."""
        for lock in self._locks:
            lock.close()
        self._locks.clear()
