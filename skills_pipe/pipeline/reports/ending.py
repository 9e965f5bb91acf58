"""How a job ended, in words: Slurm has one word of its own for each way."""

from __future__ import annotations

import re

from skills_pipe.pipeline.records.states import JobState, JobStatus

NOT_BY_US = "cancelled, and not by `ns`: by scancel, or by an administrator"
NEVER_STARTED = "never started: a job before it did not end as it had to"

_WORDS = {
    "timeout": "its time limit was reached",
    "TimeLimit": "its time limit was reached",
    "deadline": "its deadline was reached",
    "node fail": "a node failed",
    "NodeDown": "a node failed",
    "boot fail": "a node did not start",
    "out of memory": "it needed more memory than it had",
    "OutOfMemory": "it needed more memory than it had",
    "preempted": "preempted by a job of a higher priority",
    "launch failed": "its node could not start it",
    "DependencyNeverSatisfied": NEVER_STARTED,
    "Dependency": NEVER_STARTED,
}
_SIGNAL = re.compile(r"RaisedSignal:(\d+)")


def ending_words(status: JobStatus, *, before_failed: bool) -> str:
    """Why a job ended as it did; empty when there is nothing to say.

    Args:
        before_failed: whether a job that it waited for did not end as it had to.
    """
    reason = status.reason.strip()
    signal = _SIGNAL.match(reason)
    if reason in _WORDS:
        return _WORDS[reason]
    if signal:
        return f"killed by signal {signal[1]}"
    if status.state is JobState.FAILED and reason in ("", "NonZeroExitCode", "failed"):
        return f"exit code {status.exit_code}" if status.exit_code else "it ended badly"
    if status.state is JobState.CANCELLED and not re.search(r"\s", reason):
        return NEVER_STARTED if before_failed and status.started_at is None else NOT_BY_US
    return reason
