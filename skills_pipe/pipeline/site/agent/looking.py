"""Questions about paths: what lies there, what made it, whether something may be made there."""

import glob
import hashlib
import json
import os
from typing import Any

from skills_pipe.pipeline.site.agent.files import MANIFEST, manifest_path, owner_path, read_text


def look(questions: "dict[str, Any]", head_bytes: int = 4096) -> "dict[str, Any]":
    """Facts on paths: ``{path: [what, ...]}`` with what of ``output``, ``fingerprint``, ``place``, ``head``."""
    return {"facts": {path: _facts(path, wanted, head_bytes) for path, wanted in questions.items()}}


def _facts(path: str, wanted: "list[Any]", head_bytes: int) -> "dict[str, Any]":
    facts = {"kind": _kind(path)}  # type: dict[str, Any]
    try:
        if facts["kind"] == "file":
            facts["size"] = os.stat(path).st_size
        if "place" in wanted:
            facts.update(_place(path))
        if "fingerprint" in wanted:
            facts["fingerprint"] = fingerprint(path)
        if "output" in wanted:
            facts.update(_output(path, facts["kind"]))
        if "head" in wanted and facts["kind"] == "file":
            with open(path, "rb") as file:
                facts["head"] = file.read(head_bytes).decode("utf-8", "replace")
    except OSError as error:
        facts["error"] = error.strerror or str(error)
    return facts


def _kind(path: str) -> "str | None":
    if os.path.isdir(path):
        return "folder"
    return "file" if os.path.exists(path) else None


def _place(path: str) -> "dict[str, Any]":
    """Whether something may be made at ``path``, and how much room there is."""
    place = os.path.abspath(path)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    disk = os.statvfs(place)
    return {"existing": place, "writable": os.access(place, os.W_OK), "free_bytes": disk.f_bavail * disk.f_frsize}


def _output(path: str, kind: "str | None") -> "dict[str, Any]":
    facts = {"owner": read_text(owner_path(path))}  # type: dict[str, Any]
    if kind == "folder":
        facts["empty"] = not os.listdir(path)
    if kind is not None:
        facts["manifest"] = read_text(manifest_path(path))
        facts["damage"] = _damage(path)
    return facts


def _damage(path: str) -> "list[Any]":
    """Files that are not as large as the manifest says, one line each; none without a manifest that can be read."""
    sealed = _sealed(path)
    base = path if os.path.isdir(path) else os.path.dirname(path)
    found = []
    for name, (size, _) in (sealed["files"] if sealed else {}).items():
        file = os.path.join(base, name)
        if not os.path.isfile(file):
            found.append("{}: missing".format(file))  # noqa: UP032
        elif os.stat(file).st_size != size:
            found.append("{}: {} bytes, {} expected".format(file, os.stat(file).st_size, size))  # noqa: UP032
    return found


def fingerprint(path: str) -> "str | None":
    """What a file or folder is, in a few characters; see ``decisions.fingerprint``."""
    if not os.path.exists(path):
        matches = sorted(glob.glob(path, recursive=True))
        return "files:" + _digest({match: fingerprint(match) for match in matches}) if matches else None
    own = _sealed(path)
    if own is not None and own["identity"] is None:
        return "content:" + _digest({name: sha256 for name, (_, sha256) in own["files"].items()})
    for place in _upwards(path):
        found = _sealed(place)
        if found is not None and found["identity"] is not None and _holds(found["files"], place, path):
            return "stage:" + str(found["identity"])
    if os.path.isdir(path):
        return "folder:" + _folder_digest(path)
    status = os.stat(path)
    return "file:" + str(status.st_size) + ":" + str(status.st_mtime_ns)


def _upwards(path: str) -> "list[Any]":
    places, above = [path], os.path.dirname(os.path.abspath(path))
    while above not in places:
        places.append(above)
        above = os.path.dirname(above)
    return places


def _holds(files: "dict[str, Any]", output: str, path: str) -> bool:
    """Whether ``path`` is the output or a part of it: somebody may have put other things in its folder."""
    if path == output or not os.path.isdir(output):
        return True
    part = os.path.relpath(os.path.abspath(path), output).split(os.sep)
    for name in files:
        recorded = name.split("/")
        # A folder with a manifest of its own is recorded by that.
        if recorded[: len(part)] == part or (recorded[-1] == MANIFEST and part[: len(recorded) - 1] == recorded[:-1]):
            return recorded != [MANIFEST]
    return False


def _sealed(path: str) -> "dict[str, Any] | None":
    """Files (name -> size, hash) and identity of the manifest of ``path``; that of another program is none."""
    try:
        value = json.loads(read_text(manifest_path(path)) or "")
        files = {name: (record["size"], _hash_in(record)) for name, record in value["files"].items()}
        return {"files": files, "identity": value["identity"]["digest"] if value["identity"] else None}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _hash_in(record: "dict[str, Any]") -> str:
    """As ``artifacts.manifest`` reads it: the first manifests had a sha256 by that name."""
    return str(record["hash"] if "hash" in record else record["sha256"])


def _folder_digest(folder: str) -> str:
    files = {}
    for parent, _, names in os.walk(folder):
        for path in (os.path.join(parent, name) for name in names):
            # A link that leads nowhere is known by itself.
            status = os.stat(path) if os.path.exists(path) else os.lstat(path)
            files[os.path.relpath(path, folder)] = [status.st_size, status.st_mtime_ns]
    return _digest(files)


def _digest(value: object) -> str:
    """As ``artifacts.identity.digest``."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
