"""The manifest: the last file of every output, which says that the output is whole and what made it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from skills_pipe.artifacts.atomic import write_json
from skills_pipe.artifacts.content_hash import has_hash, hash_file
from skills_pipe.artifacts.identity import Identity
from skills_pipe.artifacts.identity import digest as digest_of
from skills_pipe.artifacts.names import MANIFEST, manifest_path
from skills_pipe.errors import CheckpointError

_FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Size in bytes and hash of one file; a nested folder with a manifest of its own is recorded by that manifest."""

    size: int
    hash: str

    @staticmethod
    def of(path: Path) -> FileRecord:
        """Read a file whole and record it."""
        return FileRecord(size=path.stat().st_size, hash=hash_file(path))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an output consists of.

    Attributes:
        kind: what the output is: ``checkpoint``, ``hf_model``, ``sft_data``, ``training``, ``eval``, ...
        files: path relative to the output (the output's own name, for a file) -> size and hash.
        identity: the stage that made it, None when it was made by hand.
        facts: whatever the writer wants to be remembered: step, counts, metrics.
    """

    kind: str
    files: Mapping[str, FileRecord]
    identity: Identity | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Hash of the contents: the same for equal files, whoever wrote them."""
        return digest_of({name: record.hash for name, record in self.files.items()})

    def to_json(self) -> dict[str, Any]:
        """Plain value for the manifest file."""
        return {
            "format": _FORMAT,
            "kind": self.kind,
            "files": {name: asdict(record) for name, record in self.files.items()},
            "identity": self.identity.to_json() if self.identity else None,
            "facts": dict(self.facts),
        }


def seal(
    output: Path,
    *,
    kind: str,
    facts: Mapping[str, Any] | None = None,
    hashed: Mapping[str, FileRecord] | None = None,
) -> Manifest:
    """Hash what lies at ``output`` (a file or a folder) and write its manifest, as the last act of making it.

    The identity comes from the launcher through the environment. Inside :func:`atomic.publish_directory`, call it on
    the temporary folder: manifest and contents then appear in one rename. ``hashed`` holds the files of a folder whose
    hash the writer took while it wrote them; they are not read again.
    """
    files = _hash_files(output, hashed or {})
    manifest = Manifest(kind=kind, files=files, identity=Identity.from_environment(), facts=facts or {})
    write_json(manifest_path(output), manifest.to_json())
    return manifest


def read(output: Path) -> Manifest | None:
    """The manifest of an output, None when there is none: then the output is not finished.

    Raises:
        CheckpointError: the manifest cannot be read.
    """
    path = manifest_path(output)
    try:
        return parse(path.read_text(), path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def parse(text: str, path: Path) -> Manifest:
    """The manifest whose file ``path`` holds ``text``.

    Raises:
        CheckpointError: it is none.
    """
    try:
        value = json.loads(text)
        files = {name: _record(found) for name, found in value["files"].items()}
        identity = Identity.from_json(value["identity"]) if value["identity"] else None
        return Manifest(kind=value["kind"], files=files, identity=identity, facts=value["facts"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"the manifest is damaged ({error})", where=str(path), fix="remove the output and run its stage again"
        ) from error


def damage(output: Path, manifest: Manifest, *, hashes: bool = True) -> list[str]:
    """What of ``output`` is not as its manifest says, one line per file; ``hashes=False`` compares sizes only."""
    base = output if output.is_dir() else output.parent
    found = []
    for name, record in manifest.files.items():
        path = base / name
        if not path.is_file():
            found.append(f"{path}: missing")
        elif path.stat().st_size != record.size:
            found.append(f"{path}: {path.stat().st_size} bytes, {record.size} expected")
        elif hashes and not has_hash(path, record.hash):
            found.append(f"{path}: the contents changed")
    return found


def _record(value: Mapping[str, Any]) -> FileRecord:
    # Format 1 had a sha256 by that name.
    return FileRecord(size=value["size"], hash=value["hash"] if "hash" in value else value["sha256"])


def _hash_files(output: Path, hashed: Mapping[str, FileRecord]) -> dict[str, FileRecord]:
    if not output.is_dir():
        return {output.name: FileRecord.of(output)}
    files: dict[str, FileRecord] = dict(hashed)
    _hash_folder(output, output, files)
    return files


def _hash_folder(folder: Path, root: Path, files: dict[str, FileRecord]) -> None:
    nested = folder / MANIFEST
    if folder != root and nested.is_file():
        files[str(nested.relative_to(root))] = FileRecord.of(nested)
        return
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith((".tmp-", ".owner-", "old_")):
            continue
        if entry.is_dir():
            _hash_folder(entry, root, files)
        elif entry != root / MANIFEST and str(entry.relative_to(root)) not in files:
            files[str(entry.relative_to(root))] = FileRecord.of(entry)
