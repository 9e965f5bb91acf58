"""A machine of a cluster: a host name of its own, the daemons on it, and all that they start.

It is a UTS namespace. Whatever a machine starts stays in it, daemons and jobs alike, so that to end a machine is to end
every process in its namespace, as a power cut does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

_PROC = Path("/proc")

# Lives as long as the machine; what is started on the machine enters its namespaces.
_INIT = 'hostname "$0" && mount --bind "$1" /etc/hosts && echo up && exec sleep infinity'

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Machine:
    """A machine that is on until it is killed.

    Attributes:
        name: what ``hostname`` says on it.
        pid: of the process that is always there.
    """

    def __init__(self, name: str, *, hosts: Path, log: Path) -> None:
        """``hosts`` is its /etc/hosts; what its programs print is appended to ``log``."""
        self.name = name
        self._log = log
        namespaces = ("--uts", "--mount", "--propagation", "slave")
        init = subprocess.Popen(
            ["unshare", *namespaces, "bash", "-c", _INIT, name, str(hosts)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._children = [init]
        self.pid = init.pid
        if init.stdout is None or init.stdout.readline() != b"up\n":
            raise RuntimeError(f"no namespaces for {name}: is this process privileged?")
        init.stdout.close()
        self._processes = ProcessesOf(self.pid)

    def start(self, *argv: str, variables: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start a program on it, with these variables and no others of ours."""
        with open(self._log, "ab") as log:
            child = subprocess.Popen(
                ["nsenter", f"--target={self.pid}", "--uts", "--mount", *argv],
                env={"PATH": _PATH, "HOME": "/root", "USER": "root", "LANG": "C.UTF-8", **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        self._children.append(child)
        return child

    def pids(self) -> list[int]:
        """Of all that runs on it."""
        return self._processes.pids()

    def kill(self) -> None:
        """Cut its power; returns when nothing of it is left."""
        self._processes.kill()
        for child in self._children:
            child.wait()


class ProcessesOf:
    """All processes that share the host name of one process, also after that one has ended."""

    def __init__(self, pid: int) -> None:
        # The open file keeps the namespace alive, so its number cannot become that of another one.
        self._namespace = os.open(_PROC / str(pid) / "ns" / "uts", os.O_RDONLY)
        self._number = os.fstat(self._namespace).st_ino
        if self._number == os.stat(_PROC / "self" / "ns" / "uts").st_ino:  # noqa: PTH116
            raise ValueError(f"process {pid} shares the host name of this one")

    def pids(self) -> list[int]:
        """Of those that live."""
        return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit() and self._owns(entry)]

    def kill(self) -> None:
        """SIGKILL to each, until none is left."""
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _owns(self, entry: Path) -> bool:
        try:
            if (entry / "ns" / "uts").stat().st_ino != self._number:
                return False
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False  # it has ended meanwhile
        return state not in "ZX"
