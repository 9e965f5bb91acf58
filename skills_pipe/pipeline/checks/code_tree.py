"""The code that the jobs of a plan will run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skills_pipe.pipeline.checks.finding import Checked, Finding

if TYPE_CHECKING:
    from skills_pipe.pipeline.code.package import Code


def check_code(code: Code | None, findings: Sequence[Finding], *, closely: bool = False) -> Checked:
    """How large the code is, and with ``closely`` how many of its files are not committed: they are packed too.

    Args:
        code: of the jobs; None where they run the installed package.
        findings: why it cannot be had.
        closely: ask git as well, which takes longer than making a plan.
    """
    subject = "code"
    if findings:
        return Checked(subject=subject, findings=tuple(findings))
    if code is None:
        return Checked(subject=subject, note="that of the installed package")
    if code.tree is None:
        return Checked(subject=subject, note=f"{code.hash[:12]}, on the cluster already")
    size = f"{len(code.tree.entries)} files, {code.tree.size / 2**20:.1f} MB"
    changed = _uncommitted() if closely else 0
    dirty = f", {changed} of them with changes that are not committed" if changed else ""
    return Checked(subject=subject, note=f"{size}{dirty}")


def _uncommitted() -> int:
    """Changed and untracked files of the working tree that one is in."""
    from skills_pipe.pipeline.code.tree import git, repository

    root = repository(Path.cwd())
    if root is None:
        return 0
    lines = git(root, "status", "--porcelain", "--untracked-files=all").decode(errors="replace").splitlines()
    # A deleted file is not packed.
    return sum("D" not in line[:2] for line in lines)
