"""Slurm's programs: the one place that calls them, through whatever reaches the login node."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from skills_pipe.errors import PlanError, StoreError
from skills_pipe.pipeline.scripts.habits import WITHOUT_HABITS
from skills_pipe.pipeline.transport.base import Answer, Transport
from skills_pipe.pipeline.transport.here import Here

_AT_ONCE = 500
"""Ids in one call: a line of arguments has an end."""
_UNKNOWN = "Invalid job id specified"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What Slurm tells of a job, in its own words.

    Attributes:
        state: ``RUNNING``, ``COMPLETED``, ``CANCELLED``, ...
        start, end: in Unix seconds, or a word when there is none.
        nodes: names of its nodes, empty before it has some.
        reason: why it waits or ended, empty when there is nothing to say.
        restarts: how often it was requeued.
        exit_code: None where that is not told.
    """

    job_id: str
    state: str
    start: str = ""
    end: str = ""
    nodes: str = ""
    reason: str = ""
    restarts: int = 0
    exit_code: int | None = None


@dataclass(frozen=True)
class Slurm:
    """The Slurm of one cluster."""

    transport: Transport = field(default_factory=Here)

    def require(self) -> None:
        """Fail where jobs cannot be submitted.

        Raises:
            PlanError: there is no sbatch.
        """
        if not self.transport.run(["sbatch", "--version"]).ok:
            raise PlanError("there is no sbatch on this machine", fix="submit from a login node of the cluster")

    def is_there(self) -> bool:
        """Whether there is a Slurm to ask."""
        return self.transport.run(["squeue", "--version"]).ok

    def name(self) -> str:
        """What it calls itself (``ClusterName``), empty when it does not say."""
        answer = self.transport.run(["scontrol", "show", "config"])
        found = re.search(r"^ClusterName\s*=\s*(\S+)", answer.out, flags=re.MULTILINE)
        return found[1] if found else ""

    def require_name(self, name: str) -> None:
        """Fail where another Slurm answers, to which the ids of jobs mean nothing, or the jobs of somebody else.

        Raises:
            StoreError: it is another one.
        """
        here = self.name() if name and isinstance(self.transport, Here) else ""
        if here and here != name:
            raise StoreError(
                f"the jobs are those of Slurm {name!r}, and here is {here!r}", fix=f"ask on a login node of {name!r}"
            )

    def script(self, text: str) -> Answer:
        """Run a bash script on the login node: one round trip however much it does."""
        return self.transport.run(["bash", "-s"], stdin=text)

    def queue(self, job_ids: Sequence[str]) -> dict[str, Row]:
        """What the controller still remembers of these jobs.

        Raises:
            StoreError: it gives no answer.
        """
        rows: dict[str, Row] = {}
        for some in _portions(job_ids):
            # A single id that is forgotten is an error for squeue, several are not.
            answer = self._asked(["squeue", "-h", "-t", "all", "-j", ",".join(some), "-o", "%i|%T|%S|%e|%N|%r"])
            if not answer.ok and _UNKNOWN not in answer.err:
                words = f" ({' '.join(answer.err.split())})" if answer.err.strip() else ""
                raise StoreError(f"squeue gives no answer{words}", fix="try again when the controller of Slurm is back")
            rows |= {row.job_id: row for row in map(_queue_row, answer.out.splitlines()) if row}
        return rows

    def accounts(self, job_ids: Sequence[str]) -> dict[str, Row]:
        """What the accounting data base tells of these jobs; nothing where there is none."""
        rows: dict[str, Row] = {}
        for some in _portions(job_ids):
            columns = "JobID,State,Start,End,Restarts,ExitCode,NodeList,Reason"
            answer = self._asked(["sacct", "-n", "-P", "-X", "-j", ",".join(some), "-o", columns])
            if not answer.ok and "Invalid field" in answer.err:  # Restarts is newer than the rest
                columns = columns.replace("Restarts", "JobID")
                answer = self._asked(["sacct", "-n", "-P", "-X", "-j", ",".join(some), "-o", columns])
            rows |= {row.job_id: row for row in map(_account_row, answer.out.splitlines()) if row} if answer.ok else {}
        return rows

    def _asked(self, argv: Sequence[str]) -> Answer:
        return self.transport.run(["bash", "-c", f'{WITHOUT_HABITS}; exec "$@"', argv[0], *argv])

    def told(self, job_ids: Sequence[str]) -> dict[str, Row]:
        """What Slurm knows of these jobs: from its controller, else from the accounting data base."""
        rows = self.queue(job_ids)
        forgotten = [job_id for job_id in job_ids if job_id not in rows]
        return rows | (self.accounts(forgotten) if forgotten else {})

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Cancel all of them in one call: a segment that is cancelled alone would let the next one start.

        Raises:
            PlanError: scancel refused; its own words are the message.
        """
        for some in _portions(job_ids):
            answer = self.transport.run(["scancel", *some])
            # One that has ended meanwhile is no reason to complain.
            if not answer.ok and _UNKNOWN not in answer.err:
                raise PlanError(f"scancel refused: {words_of(answer)}")


def words_of(answer: Answer) -> str:
    """What a program that failed has said, on one line."""
    text = re.sub(r"\b(sbatch|scancel|scontrol|squeue): (error: )?", "", answer.err)
    return " ".join(text.split()) or f"exit code {answer.code}"


def _queue_row(line: str) -> Row | None:
    fields = line.split("|")
    if len(fields) < 6:
        return None
    return Row(
        job_id=fields[0],
        state=fields[1],
        start=fields[2],
        end=fields[3],
        nodes=_no_word(fields[4]),
        reason=_no_word("|".join(fields[5:])),
    )


def _account_row(line: str) -> Row | None:
    fields = line.split("|")
    if len(fields) < 8 or not fields[1]:
        return None
    code = fields[5].partition(":")[0]
    return Row(
        job_id=fields[0],
        state=fields[1].split()[0],  # "CANCELLED by 1000"
        start=fields[2],
        end=fields[3],
        restarts=int(fields[4]) if fields[4].isdigit() and fields[4] != fields[0] else 0,
        exit_code=int(code) if code.isdigit() else None,
        nodes="" if fields[6] == "None assigned" else fields[6],
        reason=_no_word(fields[7]),
    )


def _no_word(reason: str) -> str:
    return "" if reason in ("None", "(null)") else reason


def _portions(job_ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (job_ids[start : start + _AT_ONCE] for start in range(0, len(job_ids), _AT_ONCE))
