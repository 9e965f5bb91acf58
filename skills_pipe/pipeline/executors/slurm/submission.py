"""The transaction of a submission, seen from the launcher: hand the script over, record, settle what broke off.

``submitting.json`` lies in the folder of a run from before the first job is queued until ``submission.json`` is there,
or nothing is left of the attempt. Whoever finds it without its writer settles the run.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from dataclasses import replace

from skills_pipe.errors import PlanError, StoreError
from skills_pipe.pipeline.executors.slurm.commands import Slurm, words_of
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.records.submission import SubmissionRecord
from skills_pipe.pipeline.scripts.setting import log_path
from skills_pipe.pipeline.scripts.submission import NOT_RELEASED, settle_script

_ELSEWHERE_SECONDS = 900
"""A submission by another machine, whose processes nobody sees here, counts as broken off after this time."""


def hand_over(run: Run, draft: SubmissionRecord, script: str, slurm: Slurm) -> SubmissionRecord:
    """Queue the jobs of a run, or none, and record it.

    Args:
        draft: the record without ids, with patterns in place of logs.
        script: what queues the jobs.

    Raises:
        PlanError: a job was refused, or one that has to be waited for is unknown.
    """
    run.write_draft(draft)
    try:
        answer = slurm.script(script)
    except BaseException:
        with contextlib.suppress(StoreError):
            settle(run, slurm)
        if run.submission is not None:
            slurm.cancel(list(run.submission.job_ids.values()))
        raise
    if answer.ok or answer.code == NOT_RELEASED:
        record = _recorded(run, draft, _pairs(answer.out))
        if not answer.ok:
            held = ",".join(record.job_ids.values())
            raise PlanError(
                f"the jobs are queued, but could not be released: {words_of(answer)}", fix=f"scontrol release {held}"
            )
        return record
    with contextlib.suppress(StoreError):
        settle(run, slurm)
    raise PlanError(words_of(answer))


def is_broken_off(run: Run) -> bool:
    """Whether somebody began to submit this run and is no more."""
    draft = run.draft
    if draft is None or run.submission is not None:
        return False
    if draft.owner.is_here:
        return not draft.owner.is_alive
    return time.time() - draft.submitted_at > _ELSEWHERE_SECONDS


def settle(run: Run, slurm: Slurm) -> None:
    """End a submission that broke off: it is completed if all its jobs were accepted, else they are cancelled.

    Raises:
        StoreError: Slurm gives no answer, or is another one; what is left of the submission stays on record.
    """
    draft = run.draft
    if draft is None or run.submission is not None or not run.is_ours:
        return
    slurm.require_name(draft.slurm)
    answer = slurm.script(settle_script(run))
    word, _, rest = answer.out.partition("\n")
    if not answer.ok or word not in ("submitted", "taken back"):
        raise StoreError(
            f"the submission of {run} broke off, and cannot be settled: {words_of(answer)}",
            fix="try again when the controller of Slurm is back",
        )
    jobs = _pairs(rest)
    if word == "submitted":
        _recorded(run, draft, jobs)
        _say(f"{run}: its submission was broken off after all jobs were queued; it is on record now")
    elif jobs:
        _say(f"{run}: its submission was broken off; cancelled what it had queued: {', '.join(jobs)}")
    else:
        run.drop_draft()


def _recorded(run: Run, draft: SubmissionRecord, ids: Mapping[str, str]) -> SubmissionRecord:
    logs = {job: log_path(draft.logs[job], job_id) for job, job_id in ids.items()}
    record = replace(draft, job_ids=dict(ids), logs=logs)
    run.write_submission(record)
    run.drop_draft()
    return record


def _pairs(text: str) -> dict[str, str]:
    rows = (line.split("\t") for line in text.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
