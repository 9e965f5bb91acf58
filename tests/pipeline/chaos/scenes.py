"""Steps that the tests of chaos share: wait for states, look into the queue, find the processes of a job."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.submit import Submission
from tests.pipeline.programs import until


def ask(*argv: str) -> str:
    """What a program of Slurm answers."""
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(argv)} ended with {done.returncode}: {done.stderr}"
    return done.stdout.strip()


def is_signalled(name: str, job: str) -> bool:
    """Send a signal to the script of a job; whether Slurm has taken it."""
    return subprocess.run(["scancel", "--batch", f"--signal={name}", job], capture_output=True).returncode == 0


def queue() -> list[str]:
    """Names of the jobs that run or wait."""
    return ask("squeue", "-h", "-o", "%j").split()


def ended(submission: Submission, *, at_most: float = 300) -> dict[str, JobState]:
    """The states of all jobs, when nothing more will happen to them; no job is left in the queue."""
    until(lambda: all(state.ended for state in submission.states().values()), "all jobs have ended", at_most=at_most)
    until(lambda: not queue(), "the queue is empty", at_most=30)
    return submission.states()


def words(states: dict[str, JobState]) -> list[str]:
    """The states as a user reads them, in the order of the plan."""
    return [state.value for state in states.values()]


def begun(folder: Path, count: int) -> None:
    """Wait until the program of the training has started ``count`` times."""
    until((folder / "checkpoints" / f"job-{count - 1}").exists, f"start {count} of the program", at_most=300)


def starts(folder: Path) -> int:
    """How often the program of the training has started."""
    return len(list((folder / "checkpoints").glob("job-*")))


def processes_of(job_id: str, word: str) -> list[int]:
    """Ids of the processes of a job in whose command line a word ends with ``word``; srun and bash -c are left out."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words_of_it = os.fsdecode((entry / "cmdline").read_bytes()).rstrip("\0").split("\0")
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"SLURM_JOB_ID={job_id}".encode() not in environment or Path(words_of_it[0]).name == "srun":
            continue
        if any(one.endswith(word) for one in words_of_it):
            found.append(int(entry.name))
    # Subshells have the command line of their parent, and a higher number.
    return sorted(found)
