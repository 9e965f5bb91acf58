"""Small files of this machine, and how outputs are named."""

import contextlib
import os
import socket

MANIFEST = "manifest.json"


def read_text(path: str) -> "str | None":
    """Contents of a small file, None when it is not there."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_file(path: str, text: str, mode: int) -> None:
    """Replace a file: it appears whole or not at all, and ``mode`` holds from its first byte on."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = os.path.join(os.path.dirname(path), ".tmp-" + os.path.basename(path) + "." + writer())
    remove(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)


def remove(path: str) -> None:
    """Remove a file that may be gone."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def writer() -> str:
    """A name that no other process has at this time."""
    return socket.gethostname() + "." + str(os.getpid())


def listed(folder: str) -> "list[str]":
    """Names in a folder, none when it is not there."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def manifest_path(output: str) -> str:
    """As ``artifacts.names.manifest_path``."""
    return os.path.join(output, MANIFEST) if os.path.isdir(output) else output + "." + MANIFEST


def owner_path(output: str) -> str:
    """As ``artifacts.names.owner_path``."""
    folder, name = os.path.split(output)
    return os.path.join(folder, ".owner-" + name + ".json")
