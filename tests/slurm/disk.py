"""A disk of a cluster that is small enough to be full."""

from __future__ import annotations

import subprocess
from pathlib import Path

# Without a journal and without blocks that only root may use: all of it can be filled.
_EXT4 = ("-q", "-F", "-m", "0", "-O", "^has_journal")


def make_disk(file: Path, *, megabytes: int) -> str:
    """An empty file system in a new file; the path of its device, which is to be freed by :func:`free_disk`."""
    with open(file, "wb") as new:
        new.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", *_EXT4, str(file)], check=True, capture_output=True)
    answer = subprocess.run(["losetup", "--find", "--show", str(file)], check=True, capture_output=True, text=True)
    return answer.stdout.strip()


def free_disk(device: str) -> None:
    """Let go of the file as soon as nothing is mounted from it."""
    subprocess.run(["losetup", "--detach", device], check=True, capture_output=True)


def unmount_below(folder: Path) -> None:
    """Unmount, here, all that is mounted in a folder."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed([mount for mount in mounts if Path(mount).is_relative_to(folder)]):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
