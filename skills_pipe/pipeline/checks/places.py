"""Whether the folders that jobs of this machine write to can be made."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from pathlib import Path
from typing import Final

from skills_pipe.pipeline.checks.finding import Finding, error
from skills_pipe.pipeline.plan import Plan

_KERNEL: Final = frozenset({"proc", "sysfs", "devpts", "cgroup", "cgroup2", "securityfs", "debugfs", "tracefs"})
"""File systems in which nobody makes folders of his own, although their permissions may say so."""

_MOUNTS: Final = Path("/proc/self/mountinfo")


def check_places(plan: Plan, flag_of: Callable[[str], str | None]) -> list[Finding]:
    """Findings on outputs and folders of logs of ``plan`` that cannot be made; nothing is written to find out.

    Args:
        plan: what is to run; what is finished already needs no place.
        flag_of: path -> the option that names it.
    """
    written = [stage.output for stage in plan.stages if stage.output] + [job.log_dir for job in plan.jobs]
    findings: dict[str, Finding] = {}
    for path in map(posixpath.abspath, written):
        nearest = _nearest(Path(path))
        # A file may be the output itself, which is then replaced.
        what = None if nearest == Path(path) and nearest.is_file() else _obstacle(nearest)
        if what is None:
            continue
        above = (str(parent) for parent in (Path(path), *Path(path).parents))
        flag, folder = next(((flag, folder) for folder in above if (flag := flag_of(folder))), (None, path))
        # Several outputs below one folder are one mistake.
        findings.setdefault(folder, error(f"{folder} cannot be made: {what}", where=flag, fix="choose another folder"))
    return list(findings.values())


def _nearest(path: Path) -> Path:
    """The path itself, or the nearest one above it that is there."""
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def _obstacle(nearest: Path) -> str | None:
    """Why nothing can be made at or below a path that is there."""
    if nearest.is_symlink() and not nearest.exists():
        return f"{nearest} is a link to nothing"
    if not nearest.is_dir():
        return f"{nearest} is no folder"
    kind = _file_system(nearest.resolve())
    if kind in _KERNEL:
        return f"{nearest} is on {kind}, a file system of the kernel's own"
    return None if os.access(nearest, os.W_OK | os.X_OK) else f"you may not write to {nearest}"


def _file_system(folder: Path) -> str:
    """Type of the file system of a folder, empty where that cannot be known."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    found, depth = "", 0
    for line in lines:
        before, _, after = line.partition(" - ")
        # Blanks in names are written as \040; none of the file systems that matter here is mounted at such a place.
        place = Path(before.split()[4])
        # A later mount hides an earlier one at the same place.
        if folder.is_relative_to(place) and len(place.parts) >= depth:
            found, depth = after.split()[0], len(place.parts)
    return found
