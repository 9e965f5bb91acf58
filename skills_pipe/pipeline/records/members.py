"""Which command of a job took the others down, as its script has noted it."""

from __future__ import annotations

from skills_pipe.pipeline.records.store import Run

NOTE = '"$run/exits/$job.reason"'
"""The file of the note, as a word of the script of the job."""


def failed_member(run: Run, job: str) -> str | None:
    """Why a job of several commands ended badly: ``server died with exit code 137``; None when nothing is noted."""
    try:
        return (run.folder / "exits" / f"{job}.reason").read_text().strip() or None
    except FileNotFoundError:
        return None
