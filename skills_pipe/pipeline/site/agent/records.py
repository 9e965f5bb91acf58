"""Folders of runs: claimed, written and read in bulk."""

import base64
import contextlib
import os
from typing import Any

from skills_pipe.pipeline.site.agent.files import listed, read_text, remove, write_file

RUN_FOLDERS = ("chain", "events", "exits", "identities", "progress", "save-now", "scripts", "verdicts", "warnings")
PRIVATE = ("secrets.env", "webhook")
"""Files that are sent, never fetched, and not kept where they came from."""
SUBMITTED = ("submission.json", "submitting.json")
"""Files that tell which runs there are."""
WHOLE = 50
"""How many of all runs are told whole: nobody wants to read the files of years."""


def make_run(folder: str) -> "dict[str, Any]":
    """Claim the folder of a run; refused when somebody has it."""
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    try:
        os.mkdir(folder)
    except FileExistsError:
        return {"refused": True}
    for name in RUN_FOLDERS:
        os.mkdir(os.path.join(folder, name))
    return {}


def unmake_run(folder: str) -> "dict[str, Any]":
    """Undo :func:`make_run`, if nothing was written there since."""
    with contextlib.suppress(OSError):
        for name in RUN_FOLDERS:
            os.rmdir(os.path.join(folder, name))
        os.rmdir(folder)
    return {}


def write(files: "list[Any]", removed: "dict[str, Any]") -> "dict[str, Any]":
    """Replace files, each ``{"path", "text", "mode", "base"}``, and remove others, ``{path: base}``.

    ``base`` is size and time of what the asker knows to be there, None for nothing. What has changed since, by a job or
    another laptop, is newer than what the asker has, and left alone. ``states`` is size and time of what was written.
    """
    states = {}
    for file in files:
        if is_state(file["base"], _state_of(file["path"])):
            write_file(file["path"], file["text"], file["mode"])
            states[file["path"]] = _state(file["path"])
    for path, base in removed.items():
        if is_state(base, _state_of(path)):
            remove(path)
    return {"states": states}


def is_state(copied: "list[int] | None", state: "list[int] | None") -> bool:
    """Whether ``copied`` is this size and time; file systems that keep times less closely cut them off."""
    if copied is None or state is None:
        return copied is state
    same_second = copied[0] == state[0] and copied[1] // 10**9 == state[1] // 10**9
    return same_second and str(state[1]).startswith(str(copied[1]).rstrip("0"))


def records(root: str, runs: "list[str] | None", known: "dict[str, Any]") -> "dict[str, Any]":
    """The small files of runs below ``root``, their names relative to it.

    Args:
        runs: experiments, or ``experiment/run-N``; None for all.
        known: name -> size and time of the files that the asker has; of these only changed ones are told.

    Returns:
        ``experiments``, all there are; ``runs``, folders of those asked for; ``whole``, those of them that are told
        whole: the newest, when all were asked for, and of the others what is ``SUBMITTED``; ``present``, their files;
        ``changed``, name -> size, time and text.
    """
    experiments = sorted(entry for entry in listed(root) if os.path.isdir(os.path.join(root, entry)))
    asked = experiments if runs is None else runs
    folders = []
    for name in asked:
        if "/" in name:
            folders += [name] if os.path.isdir(os.path.join(root, name)) else []
        else:
            folders += [name + "/" + entry for entry in listed(os.path.join(root, name)) if entry.startswith("run-")]
    whole = sorted(folders, key=lambda folder: _time(os.path.join(root, folder)))[-WHOLE:] if runs is None else folders
    present, changed = [], {}
    for folder in folders:
        files = _small_files(root, folder) if folder in set(whole) else [folder + "/" + name for name in SUBMITTED]
        for name in files:
            try:
                state = _state(os.path.join(root, name))
                present.append(name)
                if not is_state(known.get(name), state):
                    changed[name] = [state, read_text(os.path.join(root, name)) or ""]
            except (FileNotFoundError, UnicodeDecodeError):
                continue
    told = {"experiments": experiments, "runs": folders, "whole": whole}
    return dict(told, present=present, changed=changed)


def _small_files(root: str, run: str) -> "list[Any]":
    found = []
    for folder in (run, *(run + "/" + name for name in RUN_FOLDERS)):
        for entry in listed(os.path.join(root, folder)):
            path = os.path.join(root, folder, entry)
            # A temporary file is none of the records yet; secrets stay where they are.
            if entry not in PRIVATE and not entry.startswith(".tmp-") and os.path.isfile(path):
                found.append(folder + "/" + entry)
    return found


def _time(folder: str) -> float:
    try:
        return os.stat(folder).st_mtime
    except FileNotFoundError:
        return 0.0


def _state_of(path: str) -> "list[int] | None":
    try:
        return _state(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _state(path: str) -> "list[int]":
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def tail(path: str, offset: int, limit: int) -> "dict[str, Any]":
    """``data`` (base64) of a file from ``offset``, at most ``limit`` bytes; a negative offset counts from the end.

    ``size`` is that of the whole file, None when there is none; ``offset`` where the data begins.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = max(0, size + offset) if offset < 0 else offset
            file.seek(start)
            data = file.read(limit)
    except (FileNotFoundError, NotADirectoryError):
        return {"size": None, "offset": 0, "data": ""}
    return {"size": size, "offset": start, "data": base64.b64encode(data).decode("ascii")}
