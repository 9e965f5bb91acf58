"""Files and folders that appear whole or not at all, whatever kills the writer."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace ``path`` by a file holding ``text``: temporary file, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as indented JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def publish_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it becomes ``path`` when the block ends well, and is removed otherwise.

    What killed writers of ``path`` left beside it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = _sibling(path)
    try:
        yield temporary
        _sync_file(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextlib.contextmanager
def publish_directory(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; it becomes ``path`` when the block ends well, and is removed otherwise.

    An older folder at ``path`` is set aside under the name ``old_<name>`` for the moment between the two renames,
    and removed afterwards; :func:`recover_directory` puts it back after a crash in that moment. What killed writers of
    ``path`` left beside it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    recover_directory(path)
    _remove_leftovers(path)
    temporary = _sibling(path)
    temporary.mkdir()
    aside = _aside(path)
    try:
        yield temporary
        sync_tree(temporary)
        if path.exists():
            os.rename(path, aside)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        recover_directory(path)
        raise
    sync_directory(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def recover_directory(path: Path) -> None:
    """Finish or undo a replacement of the folder ``path`` that was killed half-way."""
    aside = _aside(path)
    if not aside.exists():
        return
    if path.exists():
        shutil.rmtree(aside)
    else:
        os.rename(aside, path)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below ``folder`` to disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync_file(Path(parent, name))
        sync_directory(Path(parent))


def sync_directory(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _sibling(path: Path) -> Path:
    """Temporary name in the same folder, different for each writer."""
    return path.with_name(f"{_draft(path)}{os.getpid()}")


def _draft(path: Path) -> str:
    """What the temporary names of all writers on this machine begin with."""
    return f".tmp-{path.name}.{socket.gethostname()}."


def _remove_leftovers(path: Path) -> None:
    """Remove drafts of ``path`` whose writers on this machine were killed; those of other machines may be at work."""
    start = _draft(path)
    for entry in path.parent.glob(f"{glob.escape(start)}*"):
        pid = entry.name.removeprefix(start)
        if not pid.isdigit() or _is_running(int(pid)):
            continue
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return True


def _aside(path: Path) -> Path:
    return path.with_name(f"old_{path.name}")
