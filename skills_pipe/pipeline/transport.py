"""How programs run on the login node of a cluster."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from skills_pipe.errors import StoreError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind

TIMEOUT_SECONDS = 600
"""How long a program may take. A busy controller needs seconds for each job of a submission, and a large folder is gone
through file by file; that nobody is there is told earlier, by ssh and by Slurm's programs themselves."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a program ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.code == 0


NOT_FOUND = Answer(code=127, out="", err="not found")
"""The answer of a program that is not there."""


class Transport(Protocol):
    """Runs programs where the scheduler of a cluster can be reached."""

    def run(self, argv: Sequence[str], *, stdin: str | bytes = "") -> Answer:
        """Run a program and wait for its end; one that is not there answers as a shell would, with 127."""


def is_behind_ssh(cluster: ClusterConfig) -> bool:
    """Whether only ssh leads from here to the cluster's files and its Slurm; nemo-run has tunnels of its own."""
    return cluster.executor is ExecutorKind.SLURM and cluster.ssh_tunnel is not None


def transport_of(cluster: ClusterConfig) -> Transport:
    """How programs run on a login node of ``cluster``: here, or through its ``ssh_tunnel``."""
    if cluster.ssh_tunnel is None or not is_behind_ssh(cluster):
        return Here()
    # Imported here: few clusters are behind ssh.
    from skills_pipe.pipeline.ssh import Ssh

    return Ssh(cluster.ssh_tunnel, where=f"ssh_tunnel of cluster {cluster.name!r}")


@dataclass(frozen=True)
class Here:
    """This machine."""

    def run(self, argv: Sequence[str], *, stdin: str | bytes = "") -> Answer:
        """Run a program as a process of this machine.

        Raises:
            StoreError: it does not end.
        """
        if shutil.which(argv[0]) is None:
            return NOT_FOUND
        data = stdin.encode() if isinstance(stdin, str) else stdin
        try:
            ended = subprocess.run(argv, input=data, capture_output=True, check=False, timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            what = f"{argv[0]} has not ended within {TIMEOUT_SECONDS} seconds"
            raise StoreError(what, fix="try again when the controller of Slurm and the file system are back") from None
        out, err = (text.decode(errors="replace") for text in (ended.stdout, ended.stderr))
        return Answer(code=ended.returncode, out=out, err=err)
