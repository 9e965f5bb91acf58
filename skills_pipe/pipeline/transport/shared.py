"""One connection to a host that all commands share; it stays open for a minute after the last.

It is opened by a program of its own, which goes into the background as soon as the login is done, so that every command
is a mere guest of it. ssh could also make it of the first command (``ControlMaster=auto``): that one splits in two,
and becomes a guest of its own other half.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TextIO

from skills_pipe.errors import ClusterConfigError
from skills_pipe.pipeline.transport.base import TIMEOUT_SECONDS

PERSIST_SECONDS = 60
"""How long the connection stays open after the last command."""
_PATIENCE_SECONDS = 60
"""How long another process may take to open it: it may ask for a password."""
_LONGEST_FOLDER = 103 - 58
"""Characters of the folder of sockets: some systems allow 103 in a path, and behind the folder come a slash, the 40
of a socket's name, and 17 that ssh adds for a moment."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Why there is no connection: how ssh ended, and what it said."""

    code: int
    said: str


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The connection of this user to a host.

    Attributes:
        path: its socket.
    """

    path: str

    @property
    def options(self) -> list[str]:
        """For ssh: go through this connection, or by yourself where it has just ended."""
        return ["-o", "ControlMaster=no", "-o", f"ControlPath={self.path}"]

    def open(self, ssh: Sequence[str], host: str) -> Failed | None:
        """See to it that it is open.

        Args:
            ssh: the program and its options.
        """
        if self._listens():
            return None
        with self._alone() as alone:
            # Without the lock each command makes a connection of its own.
            if not alone or self._listens():
                return None
            # What one that was killed has left: ssh would take it for another connection.
            Path(self.path).unlink(missing_ok=True)
            options = ["-o", "ControlMaster=yes", "-o", f"ControlPath={self.path}"]
            options += ["-o", f"ControlPersist={PERSIST_SECONDS}", "-f", "-N"]
            return _into_the_background([*ssh, *options, "--", host])

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.path) == 0

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Keep other processes from opening it at the same time; False where one of them is at it for too long."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        with open(f"{self.path}.lock", "w") as file:
            while not (alone := _locked(file)) and time.monotonic() < deadline:
                time.sleep(0.05)
            yield alone


def shared_with(host: str, login: tuple[str, ...]) -> Shared | None:
    """The connection to a host; None where the user has set up a shared one: ssh uses that by itself.

    Args:
        login: options of ssh that tell who logs in.
    """
    told = _configuration(host, login)
    settings = dict(line.split(" ", 1) for line in told.splitlines() if " " in line)
    if settings.get("controlpath", "none") != "none":
        return None
    name = hashlib.sha256("\0".join([host, *login, told]).encode()).hexdigest()[:40]
    return Shared(path=f"{_folder()}/{name}")


@cache
def _configuration(host: str, login: tuple[str, ...]) -> str:
    """All that ssh would go by."""
    return subprocess.run(["ssh", "-G", *login, "--", host], capture_output=True, text=True, check=False).stdout


def _into_the_background(argv: Sequence[str]) -> Failed | None:
    # No pipes: it would hold on to them for as long as it stays.
    with tempfile.TemporaryFile() as errors:
        nothing = subprocess.DEVNULL
        try:
            ended = subprocess.run(
                argv, stdin=nothing, stdout=nothing, stderr=errors, check=False, timeout=TIMEOUT_SECONDS
            )
        except subprocess.TimeoutExpired:
            return Failed(code=255, said="timed out")
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    return Failed(code=ended.returncode, said=said) if ended.returncode else None


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _folder() -> str:
    """A folder of this user alone for sockets; its path is short, as those must be."""
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp", f"skills_pipe-{os.getuid()}")
    if len(str(folder)) > _LONGEST_FOLDER:
        folder = Path("/tmp", folder.name)
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077:
        fix = f"chmod 700 {folder}, or remove it"
        raise ClusterConfigError("the folder for shared connections is open to others", where=str(folder), fix=fix)
    return str(folder)
