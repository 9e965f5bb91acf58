"""A login node: a real sshd on 127.0.0.1 with keys of its own, and a laptop that reaches it through ssh only."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.slurm.availability import why_not
from tests.slurm.ports import Ports

PROGRAMS = ("sshd", "ssh", "ssh-keygen", "unshare", "setpriv")

_SSHD = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {base}/host_key
PidFile none
AuthorizedKeysFile {base}/authorized_keys
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
LogLevel VERBOSE
PrintMotd no
"""

_CLIENT = """\
Host login
    HostName 127.0.0.1
    Port {port}
    IdentityFile {base}/user_key
    IdentitiesOnly yes
    UserKnownHostsFile {base}/known_hosts
Host nobody
    HostName 127.0.0.1
    Port {port}
    IdentityFile {base}/other_key
    IdentitiesOnly yes
    UserKnownHostsFile {base}/known_hosts
Host closed
    HostName 127.0.0.1
    Port {closed}
"""

# ssh looks for ~/.ssh/config in the home folder of the user data base, whatever HOME says.
_SSH = """\
#!/bin/sh
if [ "$1" != -G ]; then
  echo call >> {base}/calls
  if [ "$(cat {base}/killing 2> /dev/null)" = "$(wc -l < {base}/calls)" ]; then
    # All that was asked for is done there, and who asked never hears of it.
    cat > {base}/input
    {ssh} -F {base}/config "$@" < {base}/input > /dev/null 2>&1
    if [ -e {base}/killer ]; then kill -KILL "$PPID"; fi
    exit 255
  fi
fi
exec {ssh} -F {base}/config "$@"
"""

# Where only the login node has the cluster's files, a launcher that reads them in place finds nothing.
_WITHOUT = 'mount -t tmpfs -o ro,size=4k none "$0" && exec "$@"'


def why_no_login_node() -> str | None:
    """Why no login node can be started here, None when one can."""
    if os.geteuid() != 0:
        return "the mount namespace of the laptop needs root here"
    return why_not(*PROGRAMS)


@dataclass(kw_only=True)
class LoginNode:
    """An sshd that runs while it is entered.

    Attributes:
        variables: what programs that are started there find in their environment.
        base: folder of all its files, and of the laptop's.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    # In /tmp whatever TMPDIR says: the path of a socket is short.
    base: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="ssh-", dir="/tmp")))

    def __enter__(self) -> LoginNode:
        for name in ("host_key", "user_key", "other_key"):
            self.make_key(name)
        shutil.copy(self.base / "user_key.pub", self.base / "authorized_keys")
        self._ports = Ports()
        self._port, closed = self._ports.take(), self._ports.take()
        # A home of its own there too: login shells read nothing that somebody has set up on this machine.
        home = self.base / "home-there"
        home.mkdir(mode=0o700)
        variables = "".join(f" {name}={value}" for name, value in ({"HOME": str(home)} | {**self.variables}).items())
        config = _SSHD.format(port=self._port, base=self.base) + f"SetEnv{variables}\n"
        (self.base / "sshd_config").write_text(config)
        (self.base / "config").write_text(_CLIENT.format(port=self._port, base=self.base, closed=closed))
        program = self.base / "bin" / "ssh"
        program.parent.mkdir()
        program.write_text(_SSH.format(base=self.base, ssh=which("ssh")))
        program.chmod(0o755)
        for name in ("home", "run"):
            (self.base / name).mkdir(mode=0o700)
        self.know(self.base / "host_key.pub")
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.hang_up()
        self.stop()
        self._ports.give_back()
        shutil.rmtree(self.base, ignore_errors=True)

    def start(self) -> None:
        """Start sshd; returns when it listens."""
        Path("/run/sshd").mkdir(exist_ok=True)
        # It ends with this process, however that ends.
        argv = ["setpriv", "--pdeathsig=TERM", str(which("sshd")), "-D", "-f", str(self.base / "sshd_config")]
        with open(self.base / "sshd.log", "ab") as log:
            self._sshd = subprocess.Popen([*argv, "-E", str(self.base / "sshd.log")], stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            if time.monotonic() > deadline:
                raise RuntimeError(f"sshd never came up\n{(self.base / 'sshd.log').read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End sshd."""
        self._sshd.terminate()
        self._sshd.wait()

    def hang_up(self) -> None:
        """End the connections that are shared by commands, and leave nothing of them."""
        for path in (self.base / "run").glob("*/*"):
            if path.suffix == ".lock":
                path.unlink()
                continue
            argv = [str(which("ssh")), "-o", f"ControlPath={path}", "-O", "exit", "login"]
            subprocess.run(argv, capture_output=True, check=False, timeout=20)

    def make_key(self, name: str) -> None:
        """Make a pair of keys, in place of an older one."""
        for path in (self.base / name, self.base / f"{name}.pub"):
            path.unlink(missing_ok=True)
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(self.base / name)]
        subprocess.run(argv, check=True)

    def know(self, public_key: Path) -> None:
        """Let the laptop know this key as that of the login node, and no other."""
        (self.base / "known_hosts").write_text(f"[127.0.0.1]:{self._port} {public_key.read_text()}")

    @property
    def calls(self) -> int:
        """How often the laptop has run ssh."""
        path = self.base / "calls"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def lose_answer(self, number: int, *, kill: bool) -> None:
        """The connection breaks in this call of ssh from now on, once what it asks for is done; 0 for none.

        Args:
            kill: end the program that makes the call as well.
        """
        (self.base / "calls").write_text("")
        (self.base / "killer").touch() if kill else (self.base / "killer").unlink(missing_ok=True)
        (self.base / "killing").write_text(str(number) if number else "")

    @property
    def logins(self) -> int:
        """How many connections sshd has accepted."""
        return (self.base / "sshd.log").read_text().count("Accepted publickey")

    @property
    def laptop(self) -> dict[str, str]:
        """Environment of programs on the laptop: its own home, no Slurm."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM", "OMP_NUM_THREADS") if name in os.environ}
        return {
            **kept,
            "PATH": f"{self.base}/bin:{Path(sys.executable).parent}:{kept['PATH']}",
            "HOME": str(self.base / "home"),
            "USER": "root",
            "XDG_RUNTIME_DIR": str(self.base / "run"),
            # Of no cluster; for a file that is not there Slurm's programs would wait a minute.
            "SLURM_CONF": "/dev/null",
            "COLUMNS": "160",
        }

    def on_laptop(
        self, argv: Sequence[str], *, hidden: Path, check: bool = True, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program that does not see the folder ``hidden``: it finds an empty one, which cannot be written."""
        ended = subprocess.run(
            ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _WITHOUT, str(hidden), *argv],
            env={**self.laptop, **(variables or {})},
            cwd=self.base / "home",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if check and ended.returncode:
            raise AssertionError(f"{argv} ended with {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
        return ended


def which(program: str) -> str | None:
    """Path of a program, or of a daemon."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
