"""The logs of jobs: which files they are, how they end, what is added to them; on this machine or through ssh."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from skills_pipe.pipeline.plan import MAIN
from skills_pipe.pipeline.records.store import Run

BATCH = "batch"
"""The part of a job that is its batch script: it says why a command never began, or why a chain was stopped."""
_TAIL_BYTES = 1 << 16
_LINE_BYTES = 400
"""At least so much is read to find the last lines, and so much for each of them."""
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """One log.

    Attributes:
        part: ``main``, ``batch``, or the name of a command that runs beside the main one: ``server``.
        path: as the cluster has it.
    """

    job: str
    part: str
    path: str

    @property
    def title(self) -> str:
        """For people: the job, and the part where it is not the main one."""
        return self.job if self.part == MAIN else f"{self.job} ({self.part})"


def log_files(run: Run, job: str) -> tuple[LogFile, ...]:
    """All logs that a submitted job may have, its main command's first; none when it was not submitted."""
    record = run.submission
    main = record.logs.get(job) if record else None
    if main is None:
        return ()
    path = PurePath(main)
    beside = path.name.removeprefix(f"{MAIN}_")
    parts = [(member.name, f"{member.name}_{beside}") for member in run.plan.job(job).members[1:]]
    if beside.endswith("_srun.log"):
        parts.append((BATCH, beside.removesuffix("_srun.log") + "_sbatch.log"))
    others = (LogFile(job=job, part=part, path=str(path.with_name(name))) for part, name in parts)
    return (LogFile(job=job, part=MAIN, path=main), *others)


class LogReader:
    """Reads logs of one run, each from where it stopped the last time."""

    def __init__(self, run: Run, files: Iterable[LogFile]) -> None:
        self._site = run.site
        self._files = {file.path: file for file in files}
        self._offsets = dict.fromkeys(self._files, 0)
        self._decoders = {path: codecs.getincrementaldecoder("utf-8")("replace") for path in self._files}

    def ends(self, lines: int) -> list[tuple[LogFile, str]]:
        """The last lines of every log in which there is something; the whole of it for 0 lines."""
        if lines == 0:
            texts: dict[str, list[str]] = {}
            while pieces := self.added():
                for file, piece in pieces:
                    texts.setdefault(file.path, []).append(piece)
            return [(self._files[path], "".join(texts[path])) for path in self._files if path in texts]
        size = max(_TAIL_BYTES, lines * _LINE_BYTES)
        found = []
        for path, tail in self._site.read_tails(dict.fromkeys(self._files, -size), limit=size).items():
            if tail.data:
                self._offsets[path] = tail.offset + len(tail.data)
                found.append((self._files[path], _last(tail.data.decode(errors="replace"), lines)))
        return found

    def added(self) -> list[tuple[LogFile, str]]:
        """What has come since the last call."""
        found = []
        for path, tail in self._site.read_tails(self._offsets, limit=_PIECE_BYTES).items():
            if tail.size is not None and tail.size < self._offsets[path]:
                self._offsets[path] = 0  # somebody has emptied it
            if tail.data:
                self._offsets[path] += len(tail.data)
                found.append((self._files[path], self._decoders[path].decode(tail.data)))
        return found


def _last(text: str, lines: int) -> str:
    """The last lines; of one that a progress bar has redrawn, its last state only."""
    kept = text.rstrip("\n").split("\n")[-lines:]
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in kept) + "\n"
