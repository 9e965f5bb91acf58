"""Who may write into a folder of checkpoints: the last process that claimed it.

Two writers happen when a job is requeued while its first incarnation still runs on a lost node, or when a training is
started twice by hand. The record names the owner; a writer that is no longer the owner must not publish.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from skills_pipe.artifacts.atomic import write_json
from skills_pipe.errors import CheckpointError

_RECORD = ".owner-training.json"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A writing process.

    Attributes:
        host, pid: where it runs.
        started: boot and clock tick of its start, which tells it from a later process of the same number; empty
            where the system does not say.
        job: Slurm job and restart count, ``123-r0``; empty outside Slurm.
    """

    host: str
    pid: int
    started: str
    job: str

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        # Not through submitit: an identity, not the layout of ranks, and it is needed in a plain batch step too.
        job = os.environ.get("SLURM_JOB_ID", "")
        label = f"{job}-r{os.environ.get('SLURM_RESTART_COUNT', '0')}" if job else ""
        return cls(host=socket.gethostname(), pid=os.getpid(), started=_start_of(os.getpid()), job=label)

    @property
    def label(self) -> str:
        """Part of the names of temporary folders."""
        return f"job-{self.job}" if self.job else f"{self.host}-{self.pid}"

    def is_running_here(self) -> bool:
        """Whether this is a process of this machine that still runs; False for one of another machine."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return self.started == _start_of(self.pid)


def claim(folder: Path) -> Owner:
    """Make this process the owner of ``folder``.

    Raises:
        CheckpointError: the present owner still runs on this machine. One on another machine loses the folder: the
            scheduler starts a job again only when it holds the first one for dead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner, present = Owner.current(), _read(folder)
    if present not in (None, owner) and present.is_running_here():
        raise CheckpointError(
            f"process {present.pid} is still training into {folder}",
            fix="wait for it or end it, or choose another checkpointing.checkpoint_dir",
        )
    write_json(folder / _RECORD, asdict(owner))
    return owner


def verify(folder: Path, owner: Owner) -> None:
    """Refuse to go on when another process has claimed ``folder`` since ``owner`` did.

    Raises:
        CheckpointError: the folder has another owner, or none any more.
    """
    present = _read(folder)
    if present != owner:
        who = f"{present.job or present.host} (process {present.pid})" if present else "nobody"
        raise CheckpointError(
            f"{folder} now belongs to {who}, so this process must not write there any more",
            fix="let only one training run at a time use this checkpointing.checkpoint_dir",
        )


def release(folder: Path, owner: Owner) -> None:
    """Give the folder back, if it is still ours."""
    if _read(folder) == owner:
        (folder / _RECORD).unlink()


def _read(folder: Path) -> Owner | None:
    try:
        return Owner(**json.loads((folder / _RECORD).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _start_of(pid: int) -> str:
    """Boot and start time of a process, empty when unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The second field is the command in parentheses and may hold spaces: count from the last parenthesis.
        ticks = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{boot}:{ticks}"
