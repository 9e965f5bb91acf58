"""Processes of a machine, told apart for good: a process id alone may be given to another process later."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ProcessId:
    """One process, and no other one that has its number later.

    Attributes:
        host: name of the machine.
        pid: process id there.
        started: when it started, in whatever form that machine tells it; only compared for equality.
    """

    host: str
    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The process that has this id on this machine now."""
        return cls(host=socket.gethostname(), pid=pid, started=_started(pid) or "")

    @classmethod
    def current(cls) -> ProcessId:
        """The process that calls this."""
        return cls.of(os.getpid())

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ProcessId:
        """Read back what :meth:`to_json` gave."""
        return cls(host=value["host"], pid=value["pid"], started=value["started"])

    def to_json(self) -> dict[str, Any]:
        """Plain value for a record."""
        return asdict(self)

    @property
    def is_here(self) -> bool:
        """Whether it belongs to this machine, so that it can be looked at."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether it still runs; a process of another machine counts as running, for nobody here can tell."""
        return not self.is_here or _started(self.pid) == self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def job_mark(run: Path, job: str) -> str:
    """What every process of a local job has in its environment; ``run`` is the folder of its run."""
    return f"SKILLS_PIPE_JOB={run}#{job}"


def marked(mark: str) -> list[ProcessId]:
    """All processes of this machine that began with ``mark`` (``NAME=value``) in their environment.

    That finds what a job has left behind even after its parents are gone. Only Linux tells it: none elsewhere.
    """
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"\0{mark}\0".encode() in b"\0" + (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return [ProcessId.of(pid) for pid in found if pid != os.getpid()]


def kill(processes: Iterable[ProcessId], number: signal.Signals) -> None:
    """Send a signal to those of ``processes`` that still run here."""
    for process in processes:
        if process.is_here and process.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


def _started(pid: int) -> str | None:
    """Start time of a process, None when it is gone; one that waits only to be reaped counts as gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _started_by_ps(pid)
    # The name in parentheses may hold spaces and parentheses; state is field 3, starttime field 22 (proc(5)).
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _started_by_ps(pid: int) -> str | None:
    # A date without a place: who looks again may have another language, time zone or width of the terminal.
    fixed = os.environ | {"LC_ALL": "C", "TZ": "UTC", "COLUMNS": "200"}
    argv = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    answer = subprocess.run(argv, env=fixed, capture_output=True, text=True, check=False)
    state, _, started = answer.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()
