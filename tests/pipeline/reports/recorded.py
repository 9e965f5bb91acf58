"""Runs that are on record as submitted, without anybody who runs them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from skills_pipe.artifacts.atomic import write_json
from skills_pipe.artifacts.progress import Progress
from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.records.process import ProcessId
from skills_pipe.pipeline.records.states import JobState, JobStatus
from skills_pipe.pipeline.records.store import Run, RunStore
from skills_pipe.pipeline.records.submission import SubmissionRecord


def recorded(folder: Path, plan: Plan, *, skipped: tuple[str, ...] = (), at: float = 1000.0) -> Run:
    """The next run of an experiment, all jobs of which were handed to Slurm but those of the ``skipped`` stages."""
    run = RunStore(folder / "jobs").create(plan.expname)
    run.write_plan(plan)
    jobs = [job for job in plan.jobs if job.stage not in skipped]
    run.write_submission(
        SubmissionRecord(
            executor="slurm",
            cluster="test",
            owner=ProcessId.current(),
            submitted_at=at,
            actions={stage.name: "skip" if stage.name in skipped else "run" for stage in plan.stages},
            job_ids={job.name: str(100 + index) for index, job in enumerate(jobs)},
            logs={job.name: f"{folder}/logs/main_{job.name}_{100 + index}_srun.log" for index, job in enumerate(jobs)},
        )
    )
    return run


def statuses(run: Run, **states: JobState) -> dict[str, JobStatus]:
    """Statuses in these states, pending where nothing is said; ``sft_0`` is the job ``sft-0``."""
    given = {name.replace("_", "-"): state for name, state in states.items()}
    record = run.submission
    assert record is not None
    return {
        job.name: JobStatus(
            job=job.name,
            stage=job.stage,
            job_id=record.job_ids[job.name],
            log=record.logs[job.name],
            state=given.get(job.name, JobState.PENDING),
        )
        for job in run.plan.jobs
        if job.name in record.job_ids
    }


def report_progress(run: Run, job: str, **fields: object) -> None:
    """What the job itself would have written."""
    progress = Progress(**({"done": 0, "total": 0, "unit": "steps"} | fields))  # type: ignore[arg-type]
    run.progress_path(job).write_text(json.dumps(asdict(progress)))


def warn(run: Run, job: str, *sentences: str) -> None:
    """What the job itself would have written."""
    write_json(run.warnings_path(job), list(sentences))
