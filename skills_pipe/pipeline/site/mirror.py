"""Copies of the records of runs, on a machine that reaches their cluster through ssh only.

The cluster has the records; what is read here are copies, brought up to date in the round trip that asks Slurm too.
What the launcher writes here goes along with the next program that it starts there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from skills_pipe.pipeline.cluster.config import ClusterConfig, default_job_dir
from skills_pipe.pipeline.site.agent.records import PRIVATE, RUN_FOLDERS
from skills_pipe.pipeline.site.site import Site, parse_program, program, site_of
from skills_pipe.pipeline.transport.base import Answer

_WRITTEN_BY_JOBS = ("chain", "exits", "progress", "save-now", "verdicts", "warnings")
"""Folders in which jobs remove files too."""

State = list[int]
"""Size in bytes and time of the last change in nanoseconds."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question for what has changed, and the copies that there were when it was asked.

    Until the answer is there, other commands may go on here: what they have made or fetched meanwhile is newer.

    Attributes:
        runs: experiments, or ``experiment/run-N``; None for all.
        experiments: all of which there were copies.
        folders: runs, of those asked for, of which there were copies.
        known: their files.
    """

    runs: tuple[str, ...] | None
    experiments: tuple[str, ...]
    folders: tuple[str, ...]
    known: dict[str, State]


class Mirror:
    """Copies of the runs of one job folder.

    Attributes:
        site: the files of the cluster.
        at: the job folder there.
        folder: the job folder of the copies.
    """

    def __init__(self, site: Site, at: str, folder: Path) -> None:
        self.site = site
        self.at = at
        self.folder = folder
        self._fresh: set[str] = set()

    @classmethod
    def of(cls, cluster: ClusterConfig) -> Mirror:
        """The mirror of a cluster behind ssh."""
        tunnel = cluster.ssh_tunnel
        login = (f"{tunnel.user}@{tunnel.host}" if tunnel.user else tunnel.host) if tunnel else cluster.name
        return cls(site_of(cluster), cluster.job_dir, _folder(login, cluster.job_dir))

    def sibling(self, job_dir: str) -> Mirror:
        """The mirror of another job folder of the same cluster."""
        return Mirror(self.site, job_dir, self.folder.parent / _folder_name(job_dir))

    def run(self, name: str) -> MirroredRun:
        """The copy of a run, as it is now."""
        return MirroredRun(self, name, fresh=name in self._fresh)

    @property
    def root(self) -> Path:
        """Folder of the copies of all experiments."""
        return self.folder / "experiments"

    def pull(self, runs: Iterable[str] | None, *actions: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Bring copies up to date, and do further actions in the same round trip; their answers.

        Args:
            runs: experiments, or ``experiment/run-N``; None for all.
        """
        asked = self.asking(runs)
        told, *answers = self.site.ask(self.question(asked), *actions)
        self.apply(told, asked)
        return answers

    def asking(self, runs: Iterable[str] | None) -> Asked:
        """What is to be asked now about these runs."""
        names = None if runs is None else tuple(dict.fromkeys(runs))
        folders = self._folders(names)
        return Asked(
            runs=names,
            experiments=tuple(entry.name for entry in _entries(self.root)),
            folders=folders,
            known={name: state for run in folders for name, state in states(self.root, run).items()},
        )

    def question(self, asked: Asked) -> dict[str, Any]:
        """The action whose answer :meth:`apply` takes."""
        return {"do": "records", "root": f"{self.at}/experiments", "runs": asked.runs, "known": asked.known}

    def apply(self, told: Mapping[str, Any], asked: Asked) -> None:
        """Write what has changed there, and remove what is gone."""
        # Secrets of a submission lie here until they are sent.
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in (
            *told["experiments"],
            *told["runs"],
            *(f"{run}/{sub}" for run in told["runs"] for sub in RUN_FOLDERS),
        ):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        for name, (state, text) in told["changed"].items():
            if self._is_as(name, asked):
                _write_copy(self.root / name, text, state)
        for name in asked.experiments:
            if name not in told["experiments"]:
                shutil.rmtree(self.root / name, ignore_errors=True)
        for run in asked.folders:
            if run not in told["runs"]:
                shutil.rmtree(self.root / run, ignore_errors=True)
        present, whole = set(told["present"]), set(told["whole"])
        self._fresh = whole
        for name in asked.known:
            experiment, run, *rest = name.split("/")
            by_jobs = f"{experiment}/{run}" in whole and rest[0] in _WRITTEN_BY_JOBS
            if by_jobs and name not in present and self._is_as(name, asked):
                (self.root / name).unlink(missing_ok=True)

    def _is_as(self, name: str, asked: Asked) -> bool:
        """Whether a copy is still that of the question, or missing still."""
        return _state_of(self.root / name) == asked.known.get(name)

    def open(self, run: str) -> None:
        """Make the folder of the copies of a run that was made there just now."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A copy of the same name is of a run that was removed there.
        shutil.rmtree(self.root / run, ignore_errors=True)
        for name in RUN_FOLDERS:
            (self.root / run / name).mkdir(parents=True)

    def _folders(self, runs: Sequence[str] | None) -> tuple[str, ...]:
        """Folders of the copies of these runs."""
        names = [entry.name for entry in _entries(self.root)] if runs is None else runs
        found = []
        for name in names:
            found += [name] if "/" in name else [f"{name}/{entry.name}" for entry in _entries(self.root / name)]
        return tuple(name for name in found if (self.root / name).is_dir())


class MirroredRun:
    """The copy of one run, and the way to its cluster: a transport that takes along what was written here.

    Attributes:
        at: folder of the run on the cluster.
    """

    def __init__(self, mirror: Mirror, name: str, *, fresh: bool) -> None:
        self.at = f"{mirror.at}/experiments/{name}"
        self._mirror = mirror
        self._name = name
        self._sent = states(mirror.root, name)
        self._fresh = fresh

    @property
    def site(self) -> Site:
        """The files of the cluster."""
        return self._mirror.site

    def run(self, argv: Sequence[str], *, stdin: str | bytes = "") -> Answer:
        """Send what was written here, run a program there, and fetch what has changed there: one round trip."""
        text = stdin if isinstance(stdin, str) else stdin.decode()
        asked = self._mirror.asking([self._name])
        written, ended, told = self.site.ask(self._writing(), program(argv, text), self._mirror.question(asked))
        asked.known.update(self._sent_as(written))
        self._mirror.apply(told, asked)
        self._sent = states(self._mirror.root, self._name)
        return parse_program(ended)

    def refresh(self) -> None:
        """Bring the copy up to date, if it has been looked at since it was."""
        if not self._fresh:
            self._mirror.pull([self._name])
            self._sent = states(self._mirror.root, self._name)
        self._fresh = False

    def flush(self) -> None:
        """Send what was written here and has not been sent."""
        action = self._writing()
        if action["files"] or action["removed"]:
            self._sent_as(self.site.ask(action)[0])

    def _writing(self) -> dict[str, Any]:
        """The action that brings there what was written and removed here."""
        root, now = self._mirror.root, states(self._mirror.root, self._name)
        files = [
            {
                "path": self._there(name),
                "text": (root / name).read_text(encoding="utf-8"),
                "mode": (root / name).stat().st_mode & 0o777,
                "base": self._sent.get(name),
            }
            for name, state in now.items()
            if self._sent.get(name) != state
        ]
        gone = [name for name in self._sent if name not in now and name.count("/") == 2]
        return {"do": "write", "files": files, "removed": {self._there(name): self._sent[name] for name in gone}}

    def _sent_as(self, written: Mapping[str, Any]) -> dict[str, State]:
        """The copies are those of the files there from now on; secrets do not stay here. Their new states."""
        for path, state in written["states"].items():
            copy = self._mirror.root / self._name / PurePosixPath(path).relative_to(self.at)
            if copy.name in PRIVATE:
                copy.unlink()
            else:
                os.utime(copy, ns=(state[1], state[1]))
        self._sent = states(self._mirror.root, self._name)
        own = {str(PurePosixPath(path).relative_to(f"{self._mirror.at}/experiments")) for path in written["states"]}
        return {name: state for name, state in self._sent.items() if name in own}

    def _there(self, name: str) -> str:
        return f"{self._mirror.at}/experiments/{name}"


def _folder(login: str, job_dir: str) -> Path:
    """Folder of the copies of a job folder; those of one login lie side by side."""
    return Path(default_job_dir(), "clusters", login, _folder_name(job_dir))


def _folder_name(job_dir: str) -> str:
    return f"{PurePosixPath(job_dir).name}-{hashlib.sha256(job_dir.encode()).hexdigest()[:12]}"


def states(root: Path, run: str) -> dict[str, State]:
    """Files of a run below ``root``, their names relative to that."""
    found = {}
    for folder in (run, *(f"{run}/{name}" for name in RUN_FOLDERS)):
        for entry in _entries(root / folder):
            if not entry.name.startswith(".tmp-") and entry.is_file():
                status = entry.stat()
                found[f"{folder}/{entry.name}"] = [status.st_size, status.st_mtime_ns]
    return found


def _state_of(path: Path) -> State | None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [status.st_size, status.st_mtime_ns]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _write_copy(path: Path, text: str, state: State) -> None:
    temporary = path.with_name(f".tmp-{path.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        # The time tells later whether the copy is that of the file there.
        os.utime(temporary, ns=(state[1], state[1]))
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
