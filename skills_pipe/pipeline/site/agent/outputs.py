"""Who may write an output: records beside it, taken all at once or not at all; and old outputs out of the way."""

import contextlib
import os
from typing import Any

from skills_pipe.pipeline.site.agent.files import (
    MANIFEST,
    manifest_path,
    owner_path,
    read_text,
    remove,
    write_file,
    writer,
)


def claim(records: "dict[str, Any]", dead: "dict[str, Any]") -> "dict[str, Any]":
    """Put an owner's record beside each output, ``{output: text}``: all, or none.

    A record that is there already refuses it, unless it is the one in ``dead``. The answer is ``taken``, those that
    refused, with their ages in seconds by the clock of their file system; and else ``replaced``, the dead ones.
    """
    made = []  # type: list[str]
    replaced = {}  # type: dict[str, str]
    try:
        for output, text in records.items():
            found, age = _claim_one(output, text, dead.get(output))
            if found is not None and found != dead.get(output):
                unclaim({path: records[path] for path in made}, replaced)
                return {"refused": True, "taken": {output: [found, age]}}
            made.append(output)
            if found is not None:
                replaced[output] = found
    except OSError:
        unclaim({path: records[path] for path in made}, replaced)
        raise
    return {"replaced": replaced}


def _claim_one(output: str, text: str, dead: "str | None") -> "tuple[str | None, float]":
    """The record that was there, and its age; this one is there now if that was None or the dead one."""
    path = owner_path(output)
    draft = os.path.join(os.path.dirname(path), ".tmp-" + os.path.basename(path) + "." + writer())
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
        replaced, age = None, 0.0
        while True:
            # The whole record appears in one step: link() fails when the name is taken, on network file systems too.
            try:
                os.link(draft, path)
                return replaced, age
            except FileExistsError:
                found = read_text(path)
            if found is None:
                continue
            # Both times are of the file server: the clocks of machines differ.
            age = os.stat(draft).st_mtime - _written_at(path)
            if found != dead:
                return found, age
            replaced = found
            _take_away(path, found)
    finally:
        remove(draft)


def _written_at(path: str) -> float:
    """Time of the last change; that of a file which is gone by now does not matter."""
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _take_away(path: str, dead: str) -> None:
    """Remove this record, and only this: somebody else may have replaced it since it was read."""
    aside = path + "." + writer()
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    if read_text(aside) != dead:
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    os.unlink(aside)


def unclaim(records: "dict[str, Any]", replaced: "dict[str, Any]") -> "dict[str, Any]":
    """Undo a claim: remove the records that are still ours, and put back those that they replaced."""
    for output, text in records.items():
        path = owner_path(output)
        if read_text(path) == text:
            if output in replaced:
                write_file(path, replaced[output], 0o644)
                os.utime(path, (0, 0))  # it was found dead, and is not born again
            else:
                remove(path)
    return {}


def set_aside(paths: "list[Any]") -> "dict[str, Any]":
    """Rename outputs and their manifests to the next free ``old_<name>.<n>``: all, or none.

    ``moved`` tells from where to where.
    """
    moved = []  # type: list[list[str]]
    try:
        for path in paths:
            _set_one_aside(path, moved)
    except OSError as error:
        try:
            put_back(moved)
        except OSError as another:
            both = f"{error.strerror}; then: {another.strerror}"
            raise OSError(error.errno, both, error.filename) from another
        raise
    return {"moved": moved}


def _set_one_aside(path: str, moved: "list[list[str]]") -> None:
    """Rename an output and its manifest; what was renamed is added to ``moved`` one by one."""
    folder, name = os.path.split(path)
    number = 1
    while os.path.lexists(os.path.join(folder, "old_" + name + "." + str(number))):
        number += 1
    aside = os.path.join(folder, "old_" + name + "." + str(number))
    pairs = [(path, aside)]
    if not os.path.isdir(path):
        pairs.insert(0, (manifest_path(path), aside + "." + MANIFEST))
    for pair in pairs:
        if os.path.exists(pair[0]):
            os.rename(*pair)
            moved.append(list(pair))


def put_back(moved: "list[Any]") -> "dict[str, Any]":
    """Undo :func:`set_aside`, all of it that can be undone; the error names what keeps its new name."""
    failed = []  # type: list[tuple[OSError, str]]
    for before, aside in reversed(moved):
        try:
            if not os.path.lexists(before):
                os.rename(aside, before)
        except OSError as error:
            failed.append((error, aside))
    if failed:
        first, aside = failed[0]
        names = ", ".join(aside for _, aside in failed)
        raise OSError(first.errno, f"{first.strerror}: could not be renamed back: {names}", aside)
    return {}
