"""What an input of a stage is, in a few characters: equal fingerprints mean that nothing needs to be done again."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path, PurePath

from skills_pipe.artifacts import manifest
from skills_pipe.artifacts.identity import digest
from skills_pipe.artifacts.manifest import Manifest
from skills_pipe.artifacts.names import MANIFEST, manifest_path
from skills_pipe.errors import CheckpointError, PlanError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def fingerprint(path: Path) -> str | None:
    """Fingerprint of a file or folder (or of all that a glob pattern matches), None when there is nothing.

    =====================  ========================================================
    ``stage:<digest>``     made by a stage: identity in its manifest, or in that of
                           the nearest folder above
    ``content:<digest>``   sealed by hand: hash of the contents
    ``file:<size>:<ns>``   any other file: bytes and time of the last change
    ``folder:<digest>``    any other folder: names, bytes and times of its files
    =====================  ========================================================
    """
    if not path.exists():
        # Path.glob takes relative patterns only.
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
        return f"files:{digest({match: fingerprint(Path(match)) for match in matches})}" if matches else None
    own = _sealed(path)
    if own is not None and own.identity is None:
        return f"content:{own.digest}"
    for place in (path, *path.absolute().parents):
        found = _sealed(place)
        if found is not None and found.identity is not None and _holds(found, place, path):
            return f"stage:{found.identity.digest}"
    if path.is_dir():
        return f"folder:{_folder_digest(path)}"
    status = path.stat()
    return f"file:{status.st_size}:{status.st_mtime_ns}"


def is_hub_id(name: str) -> bool:
    """Whether ``name`` may be the id of a model or data set on the Hugging Face hub: ``org/name``."""
    return _HUB_ID.fullmatch(name) is not None


def missing_input(path: str, stage: str) -> PlanError:
    """The error for an input that is neither on disk nor promised by a run before."""
    return PlanError(
        f"stage {stage!r} reads {path}, which does not exist",
        where="its input",
        fix="correct the path, or name the experiment that makes it with --run_after",
    )


def covers(output: str, path: str) -> bool:
    """Whether ``path`` is ``output`` or lies below it."""
    return PurePath(path).is_relative_to(PurePath(output))


def _sealed(path: Path) -> Manifest | None:
    """The manifest of ``path``; a ``manifest.json`` of some other program is none."""
    try:
        return manifest.read(path) if manifest_path(path).is_file() else None
    except CheckpointError:
        return None


def _holds(sealed: Manifest, output: Path, path: Path) -> bool:
    """Whether ``path`` is the output or a part of it: somebody may have put other things in its folder."""
    if path == output or not output.is_dir():
        return True
    part = path.absolute().relative_to(output).as_posix()
    # A folder with a manifest of its own is recorded by that.
    nested = {name.removesuffix(f"/{MANIFEST}") for name in sealed.files if name.endswith(f"/{MANIFEST}")}
    return any(covers(part, name) for name in sealed.files) or any(covers(folder, part) for folder in nested)


def _folder_digest(folder: Path) -> str:
    files = {}
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            # A link that leads nowhere is known by itself.
            status = path.stat() if path.exists() else path.lstat()
            files[str(path.relative_to(folder))] = [status.st_size, status.st_mtime_ns]
    return digest(files)
