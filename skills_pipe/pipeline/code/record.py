"""Which code a run had, in its folder: ``code.json``, and ``diff.patch`` with what was not committed."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skills_pipe.artifacts.atomic import write_json
from skills_pipe.errors import PlanError
from skills_pipe.pipeline.code.package import Code
from skills_pipe.pipeline.code.tree import git

RECORD = "code.json"
DIFF = "diff.patch"

_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""What git compares with where nothing was ever committed."""


def write_record(code: Code, run: Path) -> None:
    """Record the code of a run in its folder.

    Raises:
        PlanError: git does not answer.
    """
    value: dict[str, Any] = {"hash": code.hash}
    if code.tree is not None:
        value |= {"files": len(code.tree.entries), "bytes": code.tree.size, "repository": None}
    if code.tree is not None and code.tree.root is not None:
        diff = _diff(code.tree.root)
        value |= _place(code.tree.root) | {"dirty": bool(diff)}
        if diff:
            path = run / DIFF
            path.touch(mode=0o600)
            path.write_bytes(diff)
    write_json(run / RECORD, value)


def read_record(run: Path) -> Mapping[str, Any] | None:
    """What :func:`write_record` has written; None for a run whose code was not packed."""
    try:
        value: Mapping[str, Any] = json.loads((run / RECORD).read_text())
    except FileNotFoundError:
        return None
    return value


def _place(root: Path) -> dict[str, Any]:
    return {
        "repository": root.name,
        "commit": _ask(root, "rev-parse", "--verify", "--quiet", "HEAD"),
        "branch": _ask(root, "symbolic-ref", "--short", "--quiet", "HEAD"),
    }


def _ask(root: Path, *words: str) -> str | None:
    """A name, or None where git has none: no commit yet, no branch checked out."""
    try:
        return git(root, *words).decode().strip() or None
    except PlanError:
        return None


def _diff(root: Path) -> bytes:
    """All that differs from the commit, new files included; the index of the repository is left as it is."""
    base = _ask(root, "rev-parse", "--verify", "--quiet", "HEAD") or _EMPTY_TREE
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, "index")
        own = Path(git(root, "rev-parse", "--absolute-git-dir").decode().removesuffix("\n"), "index")
        if own.exists():
            shutil.copyfile(own, index)
        env = {"GIT_INDEX_FILE": str(index)}
        git(root, "add", "--intent-to-add", "--", ".", env=env)
        return git(root, "diff", "--binary", "--no-ext-diff", "--no-color", base, env=env)
