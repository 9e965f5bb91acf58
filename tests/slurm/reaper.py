"""Ends all machines of a cluster and removes its folder, also when the tests that started it are killed.

As a program it reads lines ``PID`` (of the first process of a machine) until the other end of the pipe is closed, by
its owner or by its owner's death. Then it reaps.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.slurm.disk import unmount_below
from tests.slurm.machine import Machine, ProcessesOf

_ROOT = Path(__file__).resolve().parents[2]


class Reaper:
    """The process that outlives the tests, if need be."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder)],
            stdin=subprocess.PIPE,
            cwd=_ROOT,
            env=os.environ | {"PYTHONPATH": str(_ROOT)},
            start_new_session=True,  # a Ctrl-C at the terminal is not for it
        )

    def watch(self, machine: Machine) -> None:
        """End this machine, too."""
        if self._process.stdin is None:
            raise RuntimeError("the reaper has no pipe")
        self._process.stdin.write(f"{machine.pid}\n".encode())
        self._process.stdin.flush()

    def reap(self) -> None:
        """End everything now."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def _main(folder: Path) -> None:
    machines = []
    for line in sys.stdin:
        with contextlib.suppress(FileNotFoundError):
            machines.append(ProcessesOf(int(line)))
    for machine in machines:
        machine.kill()
    unmount_below(folder)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
