"""What the code of a job is made of: the working tree of the repository one is in, and the package ``skills_pipe``."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import skills_pipe
from skills_pipe.errors import PlanError

PACKAGE = "skills_pipe"
_SYMLINK = "120000"
_EXECUTABLE = "100755"
_FILE = "100644"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of the code.

    Attributes:
        path: where it lies in the code; bytes that are no UTF-8 are surrogates, as Python has file names.
        source: where it lies here.
        mode: ``100644``, ``100755``, or ``120000`` for a symbolic link, as git has them.
    """

    path: str
    source: str
    mode: str
    status: os.stat_result

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link; its content is its target."""
        return self.mode == _SYMLINK

    def content(self) -> bytes:
        """The bytes of the file, or of the link's target."""
        if self.is_link:
            return os.fsencode(os.readlink(self.source))  # noqa: PTH115, Path would tidy the target up
        return Path(self.source).read_bytes()


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The files of the code.

    Attributes:
        entries: sorted by path.
        root: the working tree of the repository, None when the code is the installed package alone.
    """

    entries: tuple[Entry, ...]
    root: Path | None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.status.st_size for entry in self.entries)


def working_tree(folder: Path) -> Tree:
    """The code of somebody who works in ``folder``.

    In a git repository it is every file that git tracks or would offer to add, as it is now: uncommitted changes
    included, ignored and deleted files not, nor those with the attribute ``export-ignore``. Repositories within
    (submodules, or clones that lie about) are gone through the same way. The package ``skills_pipe`` is added where
    the repository is not its own.

    Raises:
        PlanError: git does not answer.
    """
    root = repository(folder)
    found = {entry.path: entry for entry in _repository_entries(root, "")} if root else {}
    if f"{PACKAGE}/__init__.py" not in found:
        found |= {entry.path: entry for entry in _package_entries()}
    return Tree(entries=tuple(found[path] for path in sorted(found)), root=root)


def repository(folder: Path) -> Path | None:
    """Root of the git working tree that ``folder`` lies in."""
    folder = folder.absolute()
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)


def git(root: Path, *words: str, stdin: bytes | None = None, env: dict[str, str] | None = None) -> bytes:
    """What git answers about a repository.

    Raises:
        PlanError: it refuses, or is not there.
    """
    argv = ["git", "-C", str(root), *words]
    try:
        ended = subprocess.run(argv, input=stdin, capture_output=True, check=False, env=env and {**os.environ, **env})
    except FileNotFoundError as error:
        raise PlanError(
            "there is no git to tell what belongs to the code", where=str(root), fix="install git"
        ) from error
    if ended.returncode:
        words_of_git = " ".join(ended.stderr.decode(errors="replace").split())
        raise PlanError(f"git cannot tell what belongs to the code: {words_of_git}", where=str(root))
    return ended.stdout


def _repository_entries(root: Path, prefix: str) -> Iterator[Entry]:
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    paths = sorted({os.fsdecode(name) for name in listed.split(b"\0") if name})
    if any(path.rpartition("/")[2] == ".gitattributes" for path in paths):
        paths = _without_ignored_by_attributes(root, paths)
    # Plain strings and one look at each: every dry run goes this way, and there may be thousands.
    for path in paths:
        source = f"{root}/{path}"
        entry = _entry(f"{prefix}{path}", source)
        if entry is not None:
            yield entry
        elif Path(source, ".git").exists():
            # A repository within; one that was never checked out is an empty folder.
            yield from _repository_entries(Path(source), f"{prefix}{path.rstrip('/')}/")


def _without_ignored_by_attributes(root: Path, paths: Sequence[str]) -> list[str]:
    """Leave out what ``git archive`` would leave out; the attribute of a folder holds for all that is in it."""
    asked = sorted({parent for path in paths for parent in _with_parents(path)})
    answer = git(
        root, "check-attr", "-z", "--stdin", "export-ignore", stdin=b"\0".join(map(os.fsencode, asked)) + b"\0"
    )
    fields = answer.split(b"\0")
    ignored = {
        os.fsdecode(name)
        for name, value in zip(fields[0::3], fields[2::3], strict=False)
        if value not in (b"unspecified", b"unset")
    }
    return [path for path in paths if ignored.isdisjoint(_with_parents(path))]


def _with_parents(path: str) -> Iterable[str]:
    """A path, and the folders above it: these end with a slash, by which git knows them."""
    return (path, *(path[: at + 1] for at, sign in enumerate(path[:-1]) if sign == "/"))


def _package_entries() -> Iterator[Entry]:
    package = str(Path(skills_pipe.__file__).resolve().parent)
    for folder, folders, names in os.walk(package):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in names:
            source = f"{folder}/{name}"
            entry = None if name.endswith((".pyc", ".pyo")) else _entry(PACKAGE + source[len(package) :], source)
            if entry is not None:
                yield entry


def _entry(path: str, source: str) -> Entry | None:
    """A file or link; None for what was deleted, and for what is neither (a folder, a socket)."""
    try:
        status = os.lstat(source)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(status.st_mode):
        return Entry(path=path, source=source, mode=_SYMLINK, status=status)
    if stat.S_ISREG(status.st_mode):
        mode = _EXECUTABLE if status.st_mode & stat.S_IXUSR else _FILE
        return Entry(path=path, source=source, mode=mode, status=status)
    return None
