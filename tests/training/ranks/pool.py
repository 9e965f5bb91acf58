"""The parent's side: starts ranks, sends them cases, replaces those that died or hang."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, Listener, wait
from pathlib import Path
from typing import Any

from tests.training.launch import environment

CASE_SECONDS = 240.0
"""After this long without an answer a rank counts as hanging."""

_GRACE_SECONDS = 20.0
"""What the others have to notice that a rank failed."""


class RankFailed(AssertionError):
    """A case failed; says on which ranks, and why."""


class Ranks:
    """``size`` processes; call it with a case. They start with the first case.

    Args:
        size: number of ranks.
        folder: for what they write: logs, rendezvous files; cases run in it.
        seconds: how long a case may take.
    """

    def __init__(self, size: int, folder: Path, *, seconds: float = CASE_SECONDS) -> None:
        self.size = size
        self._folder, self._seconds = folder, seconds
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []
        self._cases = 0

    def __call__(self, case: Callable[..., Any], **arguments: Any) -> list[Any]:
        """The results of ``case(world, **arguments)`` on each rank.

        Raises:
            RankFailed: a rank raised, died or hung.
        """
        if not self._processes:
            self._start()
        self._cases += 1
        folder = self._folder / f"case_{self._cases}"
        folder.mkdir()
        name = f"{case.__module__}:{case.__qualname__}"
        message = pickle.dumps((name, arguments, str(folder / "store"), str(folder)))
        lost = {}
        for rank, connection in enumerate(self._connections):
            try:
                connection.send_bytes(message)
            except OSError:
                lost[rank] = self._epitaph(rank)
        return self._results(name, self._collect(lost))

    def close(self) -> None:
        """End all ranks."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.kill()
            process.wait()
        self._connections, self._processes = [], []

    @property
    def pids(self) -> list[int]:
        """Process ids by rank; empty before the first case."""
        return [process.pid for process in self._processes]

    def _start(self) -> None:
        # A path of its own: that of a socket must be short.
        with tempfile.TemporaryDirectory() as folder, Listener(f"{folder}/ranks", "AF_UNIX") as listener:
            for rank in range(self.size):
                command = [sys.executable, "-m", "tests.training.ranks.worker", str(listener.address)]
                with open(self._log(rank), "ab") as log:
                    self._processes.append(
                        subprocess.Popen(
                            [*command, str(rank), str(self.size)], env=environment(), stdout=log, stderr=log
                        )
                    )
            found = {}
            for _ in range(self.size):
                connection = listener.accept()
                found[pickle.loads(connection.recv_bytes())] = connection
        self._connections = [found[rank] for rank in range(self.size)]

    def _collect(self, lost: dict[int, str]) -> list[tuple[Any, tuple[str, str] | None]]:
        """What every rank answered; a rank that gave no answer has a failure instead."""
        answers: dict[int, tuple[Any, tuple[str, str] | None]] = {r: (None, (why, "")) for r, why in lost.items()}
        deadline = time.monotonic() + (_GRACE_SECONDS if lost else self._seconds)
        while len(answers) < self.size:
            waiting = {self._connections[r]: r for r in range(self.size) if r not in answers}
            ready = wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                answers |= {r: (None, (self._where_it_hangs(r), "")) for r in waiting.values()}
            for connection in ready:
                rank = waiting[connection]
                answers[rank] = self._receive(rank)
            if any(failure for _, failure in answers.values()):
                deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
        broken = any(failure and not failure[1] for _, failure in answers.values())
        if broken:
            self.close()
        return [answers[rank] for rank in range(self.size)]

    def _receive(self, rank: int) -> tuple[Any, tuple[str, str] | None]:
        try:
            answer: tuple[Any, tuple[str, str] | None] = pickle.loads(self._connections[rank].recv_bytes())
        except (EOFError, OSError):
            return None, (self._epitaph(rank), "")
        return answer

    def _results(self, name: str, answers: list[tuple[Any, tuple[str, str] | None]]) -> list[Any]:
        failures = {rank: failure for rank, (_, failure) in enumerate(answers) if failure}
        if failures:
            lines = [f"rank {rank} of {self.size}: {what}" for rank, (what, _) in failures.items()]
            tracebacks = [f"\nrank {rank}:\n{text}" for rank, (_, text) in failures.items() if text]
            raise RankFailed("\n".join([f"{name} failed", *lines, *tracebacks]))
        return [result for result, _ in answers]

    def _epitaph(self, rank: int) -> str:
        code = self._processes[rank].wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the process died of {how}; {self._log_end(rank)}"

    def _where_it_hangs(self, rank: int) -> str:
        log = self._log(rank)
        before = log.stat().st_size
        os.kill(self._processes[rank].pid, signal.SIGUSR1)
        until = time.monotonic() + 5.0
        while log.stat().st_size == before and time.monotonic() < until:
            time.sleep(0.05)
        return f"no answer; {self._log_end(rank)}"

    def _log(self, rank: int) -> Path:
        return self._folder / f"rank_{rank}.log"

    def _log_end(self, rank: int) -> str:
        return "its log ends:\n" + self._log(rank).read_text(encoding="utf-8", errors="replace")[-3000:]
