"""A report as plain values, for ``ns status --json``: times in Unix seconds, durations in seconds."""

from __future__ import annotations

import math
from typing import Any

from skills_pipe.artifacts.progress import Progress
from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.reports.report import JobReport, RunReport, StageReport


def run_state(report: RunReport) -> str:
    """One word for a whole run: ``not submitted``, ``running``, ``pending``, ``succeeded`` or ``failed``."""
    if report.being_submitted:
        return "pending"
    if report.submitted_at is None:
        return "not submitted"
    if report.ended:
        return "succeeded" if report.good else "failed"
    states = [job.status.state for stage in report.stages for job in stage.jobs]
    return "running" if JobState.RUNNING in states else "pending"


def run_as_json(report: RunReport, advice: tuple[str, ...]) -> dict[str, Any]:
    """All that is known of a run."""
    return {
        "run": report.name,
        "folder": str(report.folder),
        "command": report.command,
        "cluster": report.cluster,
        "state": run_state(report),
        "submitted_at": report.submitted_at,
        "gpu_hours": round(report.gpu_hours, 4),
        "stages": [_stage(stage, report.now) for stage in report.stages],
        "advice": list(advice),
    }


def _stage(stage: StageReport, now: float) -> dict[str, Any]:
    return {
        "name": stage.name,
        "state": stage.word,
        "gpu_hours": round(stage.gpu_hours, 4),
        "stopped": stage.stopped or None,
        "warnings": list(stage.warnings),
        "jobs": [_job(job, now) for job in stage.jobs],
    }


def _job(job: JobReport, now: float) -> dict[str, Any]:
    status = job.status
    return {
        "name": status.job,
        "id": status.job_id,
        "state": status.state.value,
        "note": job.note or None,
        "segment": [job.segment.index, job.segment.count] if job.segment else None,
        "nodes": status.nodes or None,
        "gpus": status.gpus,
        "gpu_hours": round(status.gpu_hours(now), 4),
        "started_at": status.started_at,
        "ended_at": status.ended_at,
        "elapsed": status.elapsed(now),
        "deadline": status.deadline,
        "restarts": status.restarts,
        "exit_code": status.exit_code,
        "log": status.log,
        "progress": _progress(job.progress, job.seconds_left(now)) if job.progress else None,
    }


def _progress(progress: Progress, seconds_left: float | None) -> dict[str, Any]:
    return {
        "done": progress.done,
        "total": progress.total or None,
        "unit": progress.unit,
        "loss": _number(progress.loss),
        "tokens_per_second": _number(progress.tokens_per_second),
        "checkpoint": progress.checkpoint,
        "seconds_left": _number(seconds_left),
        "note": progress.note or None,
        "updated_at": progress.updated_at,
    }


def _number(value: float | None) -> float | None:
    """JSON has no word for what is not finite."""
    return value if value is not None and math.isfinite(value) else None
