"""What went wrong in a run, as text: which job, why, where its log is, and how the log ends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.records.states import JobState, JobStatus, stage_state
from skills_pipe.pipeline.records.store import Run

_TAIL_LINES = 12
_TAIL_BYTES = 16_384


def failure_report(run: Run, plan: Plan, statuses: Mapping[str, JobStatus]) -> str:
    """One paragraph for each stage that was not finished by a fault of its own; empty when all is well."""
    paragraphs = []
    for stage in plan.stages:
        if stage_state(plan, stage.name, statuses) in (None, JobState.SUCCEEDED):
            continue
        own = [statuses[job.name] for job in plan.jobs_of(stage.name)]
        failed = [status for status in own if status.state is JobState.FAILED]
        saved = [status for status in own if status.state is JobState.CONTINUED]
        if failed:
            paragraphs.append(_failed(failed[-1]))
        elif saved:
            paragraphs.append(f"stage {stage.name!r} is not finished ({saved[-1].reason}): run the same command again")
    return "\n".join(paragraphs)


def tail(log: Path, lines: int = _TAIL_LINES) -> list[str]:
    """The last lines of a log, none when there is no log."""
    try:
        with open(log, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    # A progress bar redraws its line after a carriage return: only the last state of it is of interest.
    return [line.rsplit("\r", 1)[-1] for line in text.rstrip().split("\n")][-lines:] if text.strip() else []


def _failed(status: JobStatus) -> str:
    text = f"job {status.job} failed ({status.reason}); its log: {status.log}"
    last = tail(Path(status.log)) if status.log else []
    # The line that the reason was read from would say it again.
    while last and status.reason and last[-1].endswith(status.reason):
        last.pop()
    return "\n".join([text, *(f"  | {line}" for line in last)])
