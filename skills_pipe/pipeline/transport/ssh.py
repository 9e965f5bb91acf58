"""OpenSSH to the login node of a cluster: the user's own ``ssh``, its configuration, keys, agent and known hosts.

All commands to one host share one connection: a password or a one-time code is asked for once, and each command costs a
round trip.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from skills_pipe.errors import ClusterConfigError
from skills_pipe.pipeline.cluster.config import SshTunnel
from skills_pipe.pipeline.transport.base import TIMEOUT_SECONDS, Answer
from skills_pipe.pipeline.transport.shared import shared_with

CONNECT_SECONDS = 20
"""How long a login node may take to answer."""

_BEGIN = "<<ns>>"
"""Printed before a command's own output: profiles of login shells print banners."""
_NO_PREPARATION = 97
_FAILED = 255
"""ssh's own exit code; a program that ends with it there is told as 254."""

_TROUBLES = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key has changed: it may be another machine",
        "ask the cluster's staff; if the change is meant, `ssh-keygen -R HOST` forgets the old key",
    ),
    (
        "Host key verification failed",
        "its host key is not known here",
        "connect once by hand with `ssh HOST`, and compare the key",
    ),
    (
        "Could not resolve hostname",
        "no machine of this name is known",
        "correct ssh_tunnel.host, or ~/.ssh/config",
    ),
    (
        "Permission denied",
        "it refuses the login",
        "see to it that `ssh HOST` works by hand; set ssh_tunnel.user or ssh_tunnel.identity",
    ),
    (
        "Too many authentication failures",
        "it refuses the login",
        "name the right key as ssh_tunnel.identity",
    ),
    (
        "timed out",
        "it does not answer",
        "see whether a VPN or a jump host is needed, and whether `ssh HOST` works by hand",
    ),
    (
        "Connection refused",
        "nothing there listens for ssh",
        "correct ssh_tunnel.host, or the port in ~/.ssh/config",
    ),
)
"""What ssh says, what that means, and what to do."""


@dataclass(frozen=True)
class Ssh:
    """Runs programs on a login node."""

    tunnel: SshTunnel
    where: str = "ssh_tunnel"

    def run(self, argv: Sequence[str], *, stdin: str | bytes = "") -> Answer:
        """Run a program there and wait for its end; one that is not there answers with 127, as in a shell.

        Raises:
            ClusterConfigError: there is no connection, or the login node's shell cannot be used.
        """
        command = [*self._ssh(), "--", self.tunnel.host, self._remote(argv)]
        data = stdin.encode() if isinstance(stdin, str) else stdin
        # One that the user has set up to be shared goes on after its first command, and holds on to a pipe of that.
        with tempfile.TemporaryFile() as errors:
            try:
                ended = subprocess.run(
                    command, input=data, stdout=subprocess.PIPE, stderr=errors, check=False, timeout=TIMEOUT_SECONDS
                )
            except subprocess.TimeoutExpired:
                what = f"what was started there has not ended within {TIMEOUT_SECONDS} seconds"
                raise self._error(what, "try again later") from None
            errors.seek(0)
            err = errors.read().decode(errors="replace")
        before, begun, out = ended.stdout.decode(errors="replace").partition(f"{_BEGIN}\n")
        if not begun:
            raise self._trouble(ended.returncode, f"{err}\n{before}")
        return Answer(code=ended.returncode, out=out, err=err)

    def _ssh(self) -> list[str]:
        if shutil.which("ssh") is None:
            raise self._error("there is no ssh on this machine", "install OpenSSH")
        argv = ["ssh", "-T", "-o", f"ConnectTimeout={CONNECT_SECONDS}", "-o", "ServerAliveInterval=15"]
        if not sys.stdin or not sys.stdin.isatty():
            # Nobody could answer a question.
            argv += ["-o", "BatchMode=yes"]
        argv += self._login()
        shared = shared_with(self.tunnel.host, self._login())
        if shared is None:
            return argv
        failed = shared.open(argv, self.tunnel.host)
        if failed:
            raise self._trouble(failed.code, failed.said)
        return [*argv, *shared.options]

    def _login(self) -> tuple[str, ...]:
        tunnel = self.tunnel
        user = ("-l", tunnel.user) if tunnel.user else ()
        return (*user, *(("-i", str(Path(tunnel.identity).expanduser())) if tunnel.identity else ()))

    def _remote(self, argv: Sequence[str]) -> str:
        """The command line for the login shell there, whichever it is: one word in single quotes, no line breaks."""
        tunnel = self.tunnel
        lines = [f"echo '{_BEGIN}'", shlex.join(argv), f"code=$?; [ $code -ne {_FAILED} ] || code=254; exit $code"]
        if tunnel.pre_command:
            # It may set variables, so it runs in this shell; what it prints is none of the program's output.
            commands = "; ".join(line for line in tunnel.pre_command.strip().splitlines() if line.strip())
            lines.insert(0, f"{{ {commands.rstrip('; ')}; }} </dev/null >&2 || exit {_NO_PREPARATION}")
        shell = shlex.split(tunnel.shell) if tunnel.shell else ["bash", "-l"]
        return shlex.join([*shell, "-c", "; ".join(lines)])

    def _trouble(self, code: int, said: str) -> ClusterConfigError:
        if code == _NO_PREPARATION:
            return self._error(f"pre_command failed there: {_last_line(said)}", "correct ssh_tunnel.pre_command")
        if code != _FAILED:
            return self._error(
                f"its shell cannot be used: {_last_line(said) or f'exit code {code}'}", "correct ssh_tunnel.shell"
            )
        for words, meaning, fix in _TROUBLES:
            if words in said:
                return self._error(meaning, fix.replace("HOST", self.tunnel.host))
        return self._error(
            _last_line(said) or "the connection broke", f"see whether `ssh {self.tunnel.host}` works by hand"
        )

    def _error(self, what: str, fix: str) -> ClusterConfigError:
        return ClusterConfigError(f"no way to {self.tunnel.host}: {what}", where=self.where, fix=fix)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
