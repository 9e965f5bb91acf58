"""The code of jobs as one package: its name, its archive, and how the archive becomes a folder of the cluster."""

from __future__ import annotations

import contextlib
import hashlib
import io
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from skills_pipe.artifacts.atomic import publish_file
from skills_pipe.errors import PlanError
from skills_pipe.pipeline.code.digest import Digests, cache_folder, digests
from skills_pipe.pipeline.code.tree import Entry, Tree, working_tree
from skills_pipe.pipeline.site.along import Along
from skills_pipe.pipeline.transport.base import Transport

FOLDER = "code"
"""Folder of the job folder that holds all code, by its names."""
LIMIT_BYTES = 200 * 2**20
"""More than that is no code."""
_KEEP_SECONDS = 7 * 86400


@dataclass(frozen=True, kw_only=True)
class Code:
    """The code of jobs.

    Attributes:
        hash: its name, made of all paths, modes and contents.
        tree: where it comes from; None for code that an earlier run has brought to the cluster.
        contents: path -> sha256, of the files of ``tree``.
    """

    hash: str
    tree: Tree | None = None
    contents: Digests | None = None

    def folder(self, job_dir: str) -> str:
        """Where it lies on the cluster."""
        return f"{job_dir}/{FOLDER}/{self.hash}"

    def archive(self) -> Path | None:
        """A tar file of it on this machine; None where it is on the cluster already.

        Raises:
            PlanError: a file has changed since the code got its name.
        """
        if self.tree is None or self.contents is None:
            return None
        path = cache_folder() / f"{self.hash}.tar"
        if not path.exists():
            _forget_old(path.parent)
            with publish_file(path) as temporary:
                _write(self.tree, self.contents, temporary)
        return path


def pack(folder: Path) -> Code:
    """The code of somebody who works in ``folder``, named, not yet archived.

    Raises:
        PlanError: it is too large to be code, or git does not answer.
    """
    tree = working_tree(folder)
    if tree.size > LIMIT_BYTES:
        raise _too_large(tree)
    hashed = digests(tree, cache_folder())
    return Code(hash=hashed.name, tree=tree, contents=hashed)


def is_there_script(code: Code, job_dir: str) -> str:
    """Shell text that ends well if the cluster has the code; it is marked as used now."""
    return f"touch -c {shlex.quote(code.folder(job_dir))} && [ -d {shlex.quote(code.folder(job_dir))} ]"


def unpack_script(code: Code, job_dir: str) -> str:
    """Shell text that makes the folder of the code of the archive on its input, whole or not at all.

    Two that unpack at once do not harm each other: the second finds a folder of the same contents. The folder cannot
    be written, so that no job changes the code of others. Its time is that of its last use.
    """
    files = len(code.tree.entries) if code.tree else 0
    return "\n".join(
        [
            "set -eu",
            f"code={shlex.quote(code.folder(job_dir))}",
            'if [ -d "$code" ]; then touch "$code"; exit 0; fi',
            'mkdir -p "${code%/*}"',
            'draft=$(mktemp -d "$code.XXXXXX")',
            # A folder that cannot be written cannot be emptied either.
            """trap 'if [ -d "$draft" ]; then chmod -R u+w "$draft"; rm -rf "$draft"; fi' EXIT""",
            'tar --extract --no-same-owner --file=- --directory="$draft"',
            # An archive that was cut between two files looks whole to tar.
            f'[ "$(find "$draft" ! -type d -printf x | wc -c)" -eq {files} ]',
            'chmod -R u=rwX,go=rX,a-w "$draft"',
            'mv --no-target-directory "$draft" "$code" 2> /dev/null || [ -d "$code" ]',
        ]
    )


def asking_for(code: Code, job_dir: str) -> Along:
    """The question whether the cluster has the code, for a round trip before :func:`install`."""
    return Along(argv=("bash", "-c", is_there_script(code, job_dir)))


def install(code: Code, job_dir: str, transport: Transport, *, asked: Along | None = None) -> None:
    """See to it that the cluster has the code; it is sent only where it is not there.

    Args:
        asked: the question for it, if it has been taken there.

    Raises:
        PlanError: it is not there and cannot be brought there.
    """
    question = asked or asking_for(code, job_dir)
    if (question.answer or transport.run(question.argv)).ok:
        return
    archive = code.archive()
    if archive is None:
        raise PlanError(
            f"the code {code.hash} is not on the cluster any more", where="--reuse_code_exp", fix="leave it out"
        )
    answer = transport.run(["bash", "-c", unpack_script(code, job_dir)], stdin=archive.read_bytes())
    if not answer.ok:
        words = " ".join(answer.err.split()) or "the archive did not arrive whole"
        raise PlanError(f"the code of the jobs cannot be unpacked: {words}", where=f"{job_dir}/{FOLDER}")


def _too_large(tree: Tree) -> PlanError:
    largest = sorted(tree.entries, key=lambda entry: -entry.status.st_size)[:3]
    named = ", ".join(f"{entry.path} ({_megabytes(entry.status.st_size)})" for entry in largest)
    return PlanError(
        f"the code of the jobs would be {_megabytes(tree.size)}, and {_megabytes(LIMIT_BYTES)} is the limit; "
        f"the largest files are {named}",
        where=str(tree.root),
        fix="name in .gitignore what is no code, or with the attribute export-ignore in .gitattributes what git tracks",
    )


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.0f} MB"


def _write(tree: Tree, expected: Digests, path: Path) -> None:
    # Imported here: a dry run writes no archive.
    import tarfile

    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") as archive:
        for entry in tree.entries:
            content = _unchanged(entry, expected)
            info = tarfile.TarInfo(entry.path)
            info.mode = int(entry.mode[-3:], 8) or 0o777
            if entry.is_link:
                info.type, info.linkname = tarfile.SYMTYPE, content.decode("utf-8", "surrogateescape")
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def _unchanged(entry: Entry, expected: Digests) -> bytes:
    try:
        content = entry.content()
    except OSError:
        content = None
    if content is None or hashlib.sha256(content).hexdigest() != expected.contents[entry.path]:
        raise PlanError(f"{entry.path} has changed while the code was packed", fix="submit again")
    return content


def _forget_old(folder: Path) -> None:
    """Archives are needed once; those of another submission may just be on their way."""
    for archive in folder.glob("*.tar"):
        with contextlib.suppress(OSError):
            if time.time() - archive.stat().st_mtime > _KEEP_SECONDS:
                archive.unlink()
