"""Submits the jobs of a plan to Slurm with sbatch, in one transaction, and asks Slurm for their states."""

from __future__ import annotations

import getpass
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from skills_pipe.artifacts.atomic import write_text
from skills_pipe.errors import PlanError, StoreError
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.plan import Job, Plan
from skills_pipe.pipeline.records.process import ProcessId
from skills_pipe.pipeline.records.states import JobState, JobStatus, record_end, record_start, recorded_statuses
from skills_pipe.pipeline.records.store import Run, SubmissionRecord
from skills_pipe.pipeline.scripts.dependency import dependency
from skills_pipe.pipeline.scripts.render import export_lines
from skills_pipe.pipeline.scripts.setting import ALL_STOPPED, JOBS, SECRETS, Setting, log_paths
from skills_pipe.pipeline.transport import Here, Transport

_HERE: Transport = Here()

_STATES = {
    "PENDING": JobState.PENDING,
    "CONFIGURING": JobState.PENDING,
    "REQUEUED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.PENDING,
    "REQUEUE_FED": JobState.PENDING,
    "RESV_DEL_HOLD": JobState.PENDING,
    "SPECIAL_EXIT": JobState.PENDING,
    "SUSPENDED": JobState.PENDING,
    "RUNNING": JobState.RUNNING,
    "COMPLETING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "STAGE_OUT": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "COMPLETED": JobState.SUCCEEDED,
    "CANCELLED": JobState.CANCELLED,
}
"""Slurm's word -> ours; every other word is a failure."""


@dataclass(frozen=True, kw_only=True)
class SlurmExecutor:
    """Jobs of the Slurm cluster that this machine's sbatch talks to.

    Attributes:
        cluster: needed for submitting only.
        secrets: variables for the jobs that must not stand in their scripts.
        after: ids of jobs of earlier runs that must end well first.
    """

    cluster: ClusterConfig | None = None
    secrets: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()

    def submit(self, run: Run, plan: Plan, actions: Mapping[str, str]) -> None:
        """Queue all jobs, or none: they are held until the last one is accepted and recorded."""
        if self.cluster is None:
            raise StoreError("a recorded run cannot be submitted again")
        _require("sbatch")
        if self.secrets:
            lines = export_lines(self.secrets.items())
            write_text(run.folder / SECRETS, "\n".join(lines) + "\n", mode=0o600)
        for job in plan.jobs:
            for log in log_paths(Setting(job=job, plan=plan, cluster=self.cluster, run=run)):
                Path(log).parent.mkdir(parents=True, exist_ok=True)
        ids: dict[str, str] = {}
        try:
            for job in plan.jobs:
                ids[job.name] = self._queue(run, dependency(job, ids, self.after), job.name)
            # Looked up after all are queued: Slurm takes a job that it has forgotten for one that ended well.
            _require_known(self.after)
            write_text(run.folder / JOBS, "".join(f"{name}\t{job_id}\n" for name, job_id in ids.items()))
            run.write_submission(self._record(run, plan, actions, ids))
            if ids:
                _call(["scontrol", "release", ",".join(ids.values())])
        except BaseException:
            if ids:
                _call(["scancel", *ids.values()])
            raise

    def statuses(self, run: Run) -> dict[str, JobStatus]:
        """States as Slurm tells them now; ends are recorded, for Slurm forgets."""
        known = recorded_statuses(run)
        open_jobs = {status.job_id: status for status in known.values() if not status.state.ended and status.job_id}
        if not open_jobs:
            return known
        told = _squeue(list(open_jobs)) or {}
        missing = [job_id for job_id in open_jobs if job_id not in told]
        told |= _sacct(missing) if missing else {}
        log = run.event_log()
        for job_id, status in open_jobs.items():
            fields = told.get(job_id) or _left_behind(run, status.job)
            resources = run.plan.job(status.job).resources
            gpus = resources.num_nodes * resources.num_gpus
            new = _by_verdict(run, replace(status, gpus=gpus, **fields))
            known[status.job] = new
            if new.started_at is not None and new.started_at != status.started_at:
                record_start(log, new)
            if new.state.ended and new.state is not JobState.LOST:
                record_end(log, new)
        return known

    def cancel(self, run: Run) -> list[str]:
        """Cancel everything that is not over in one call: a single segment would let the next one start."""
        active = [status for status in self.statuses(run).values() if not status.state.ended]
        if active:
            write_text(run.folder / ALL_STOPPED, "stopped by `ns cancel`\n")
            _call(["scancel", *(status.job_id for status in active if status.job_id)])
        return [status.job for status in active]

    def _queue(self, run: Run, after: str | None, job: str) -> str:
        # SBATCH_EXPORT in the environment would win over the script, and take everything along.
        argv = ["sbatch", "--parsable", "--hold", "--export=NIL"]
        if after:
            # Cancels what can never start; safe because every segment repeats the edges of its chain.
            argv += [f"--dependency={after}", "--kill-on-invalid-dep=yes"]
        # --parsable gives "id" or "id;cluster".
        return _call([*argv, str(run.script_path(job))]).strip().partition(";")[0]

    def _record(self, run: Run, plan: Plan, actions: Mapping[str, str], ids: Mapping[str, str]) -> SubmissionRecord:
        cluster = self.cluster
        if cluster is None:
            raise StoreError("a recorded run cannot be submitted again")
        return SubmissionRecord(
            executor="slurm",
            cluster=cluster.name,
            owner=ProcessId.current(),
            submitted_at=time.time(),
            actions=dict(actions),
            job_ids=dict(ids),
            logs={
                job.name: log_paths(Setting(job=job, plan=plan, cluster=cluster, run=run))[1].replace(
                    "%j", ids[job.name]
                )
                for job in plan.jobs
            },
        )


def _step_log(job: Job, plan: Plan, cluster: ClusterConfig, run: Run, job_id: str) -> str:
    _, step_log = log_paths(Setting(job=job, plan=plan, cluster=cluster, run=run))
    return step_log.replace("%j", job_id)


def _left_behind(run: Run, job: str) -> dict[str, Any]:
    """What is known of a job that Slurm has forgotten: the exit code that its script has left."""
    code = run.exit_code(job)
    if code is None:
        return {"state": JobState.LOST, "reason": "Slurm does not know it any more"}
    return {"state": JobState.SUCCEEDED if code == 0 else JobState.FAILED, "exit_code": code}


def _by_verdict(run: Run, status: JobStatus) -> JobStatus:
    """The exit codes of Slurm, refined by what the job itself has said."""
    job = run.plan.job(status.job)
    if job.segment is None or not status.state.ended:
        return status
    verdict = run.verdict(status.job)
    if verdict is not None and verdict.outcome.value == "complete":
        return replace(status, state=JobState.SUCCEEDED)
    if verdict is not None and verdict.outcome.value == "continue" and status.state is not JobState.CANCELLED:
        return replace(status, state=JobState.CONTINUED, reason=verdict.reason)
    if verdict is not None and verdict.outcome.value == "failed":
        return replace(status, state=JobState.FAILED, reason=verdict.reason)
    if status.state is JobState.CANCELLED and _earlier_finished(run, status.job):
        return replace(status, state=JobState.NOT_NEEDED, reason="the work was done before")
    return status


def _earlier_finished(run: Run, name: str) -> bool:
    chain = [job.name for job in run.plan.jobs_of(run.plan.job(name).stage)]
    verdicts = [run.verdict(job) for job in chain[: chain.index(name)]]
    return any(verdict is not None and verdict.outcome.value == "complete" for verdict in verdicts)


def _squeue(job_ids: Sequence[str]) -> dict[str, dict[str, Any]] | None:
    """Job id -> fields of its status, for the jobs that Slurm's controller still remembers."""
    answer = _try(["squeue", "-h", "-t", "all", "-u", getpass.getuser(), "-o", "%i|%T|%S|%e|%r"])
    if answer is None:
        raise StoreError("squeue gives no answer", fix="try again when the controller of Slurm is back")
    rows = [line.split("|") for line in answer.splitlines()]
    return {row[0]: _fields(row[1], row[2], row[3], row[4]) for row in rows if len(row) >= 5 and row[0] in job_ids}


def _sacct(job_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The same from the accounting data base; nothing without one."""
    argv = ["sacct", "-n", "-P", "-X", "-j", ",".join(job_ids), "-o", "JobID,State,Start,End,Reason"]
    answer = _try(argv) or ""
    rows = [line.split("|") for line in answer.splitlines()]
    return {row[0]: _fields(row[1].split()[0], row[2], row[3], row[4]) for row in rows if len(row) >= 5}


def _fields(word: str, start: str, end: str, reason: str) -> dict[str, Any]:
    state = _STATES.get(word, JobState.FAILED)
    text = "" if reason in ("None", "") else reason
    if state is JobState.FAILED and word != "FAILED":
        text = word.lower().replace("_", " ")
    return {
        "state": state,
        "started_at": _seconds(start) if state is not JobState.PENDING else None,
        "ended_at": _seconds(end) if state.ended else None,
        "reason": text,
    }


def _seconds(text: str) -> float | None:
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None


def _require(program: str) -> None:
    if not _HERE.run([program, "--version"]).ok:
        raise PlanError(f"there is no {program} on this machine", fix="submit from a login node of the cluster")


def _require_known(job_ids: Sequence[str]) -> None:
    unknown = [job_id for job_id in job_ids if not _try(["squeue", "-h", "-t", "all", "-j", job_id, "-o", "%i"])]
    if unknown:
        raise PlanError(
            f"Slurm does not know job {', '.join(unknown)}, and would not wait for it",
            where="--run_after",
            fix="if it has ended, leave it away; else correct its number",
        )


def _call(argv: Sequence[str]) -> str:
    """Output of a program of Slurm.

    Raises:
        PlanError: it refused; its own words are the message.
    """
    answer = _HERE.run(argv)
    if not answer.ok:
        words = " ".join(answer.err.replace("sbatch: error: ", "").split())
        raise PlanError(f"{argv[0]} refused: {words or f'exit code {answer.code}'}")
    return answer.out


def _try(argv: Sequence[str]) -> str | None:
    answer = _HERE.run(argv)
    return answer.out if answer.ok else None
