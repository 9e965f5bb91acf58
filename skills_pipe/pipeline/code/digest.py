"""The name of code: one hash over paths, modes and contents, quick when little has changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from skills_pipe.artifacts.atomic import write_text
from skills_pipe.pipeline.code.tree import Entry, Tree

HASH_LENGTH = 20
"""Hexadecimal digits of the name: 80 bits."""
_SETTLED_SECONDS = 2.0
"""A file that was changed a moment ago may change again without a new time of change: its hash is not kept."""


@dataclass(frozen=True, kw_only=True)
class Digests:
    """Hashes of a tree.

    Attributes:
        name: of the whole.
        contents: path -> sha256 of the content.
    """

    name: str
    contents: Mapping[str, str]


def digests(tree: Tree, cache: Path | None = None) -> Digests:
    """Hashes of a tree as it is now.

    Args:
        cache: folder in which hashes of files are kept for the next time; None hashes everything.
    """
    file = cache / f"{_short(str(tree.root))}.json" if cache else None
    known = _load(file)
    now = time.time()
    kept: dict[str, list[object]] = {}
    contents: dict[str, str] = {}
    for entry in tree.entries:
        mark = _mark(entry)
        old = known.get(entry.source)
        fresh = old is None or old[:-1] != mark
        content = _sha256(entry.content()) if old is None or fresh else str(old[-1])
        contents[entry.path] = content
        if now - max(entry.status.st_mtime, entry.status.st_ctime) > _SETTLED_SECONDS:
            kept[entry.source] = [*mark, content]
    if file and kept != known:
        with contextlib.suppress(OSError):  # a cache that cannot be kept costs time, nothing else
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(kept))
    return Digests(name=_name(tree, contents), contents=contents)


def cache_folder() -> Path:
    """Folder of this user for what can be made anew."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "skills_pipe" / "code"


def _name(tree: Tree, contents: Mapping[str, str]) -> str:
    whole = hashlib.sha256()
    for entry in tree.entries:
        whole.update(f"{entry.mode} {contents[entry.path]} ".encode() + os.fsencode(entry.path) + b"\0")
    return whole.hexdigest()[:HASH_LENGTH]


def _mark(entry: Entry) -> list[object]:
    """What cannot stay as it is when the content changes."""
    status = entry.status
    return [entry.mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _load(file: Path | None) -> dict[str, list[object]]:
    if file is None:
        return {}
    try:
        value = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _short(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:HASH_LENGTH]
