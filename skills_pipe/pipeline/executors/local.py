"""Runs the jobs of a plan as processes of this machine, in the order of their edges, side by side where they fit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from skills_pipe.artifacts import manifest
from skills_pipe.artifacts.atomic import write_text
from skills_pipe.artifacts.verdict import Outcome
from skills_pipe.errors import CheckpointError, JobFailed, PlanError, StoreError
from skills_pipe.pipeline.executors.base import Watcher
from skills_pipe.pipeline.executors.chain import ChainWatch
from skills_pipe.pipeline.executors.machine import Machine
from skills_pipe.pipeline.executors.schedule import READY, Never, outlook
from skills_pipe.pipeline.executors.stopping import StopSignals
from skills_pipe.pipeline.plan import MAIN, Job, Plan
from skills_pipe.pipeline.records.cancelling import (
    CANCELLED,
    cancel_requested,
    jobs_with,
    record_cancel,
    stopped_note,
)
from skills_pipe.pipeline.records.failures import failure_report
from skills_pipe.pipeline.records.members import failed_member
from skills_pipe.pipeline.records.process import ProcessId, job_mark, kill, marked
from skills_pipe.pipeline.records.states import JobState, JobStatus, local_statuses, record_end, record_start
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.records.submission import SubmissionRecord
from skills_pipe.pipeline.scripts.local import member_log

# A job waits for the word that its process is on record: a job that nobody knows of could not be stopped.
_WAIT_FOR_THE_WORD = 'read -r _ || exit 125; exec bash "$1" </dev/null'

_PAUSE = 0.05
"""Seconds between two looks at the running jobs."""


@dataclass(frozen=True, kw_only=True)
class LocalExecutor:
    """Jobs as processes here.

    Attributes:
        secrets: variables for all jobs that must not stand in their scripts.
        grace_seconds: from TERM to KILL when jobs are stopped; a training job saves in that time.
        watcher: shown the states while jobs run.
    """

    machine: Machine
    secrets: Mapping[str, str] = field(default_factory=dict)
    grace_seconds: float = 30.0
    watcher: Watcher | None = None

    def submit(self, run: Run, plan: Plan, actions: Mapping[str, str]) -> None:
        """Run all jobs of ``plan``; returns when the last one has ended."""
        for job in plan.jobs:
            self._check_fit(job)
        record = SubmissionRecord(
            executor="local",
            cluster="local",
            owner=ProcessId.current(),
            submitted_at=time.time(),
            actions=dict(actions),
            job_ids={job.name: f"local-{run.number}" for job in plan.jobs},
            logs={job.name: str(log_path(job, run)) for job in plan.jobs},
        )
        run.write_submission(record)
        _LocalRun(executor=self, run=run, plan=plan).execute()

    def statuses(self, run: Run) -> dict[str, JobStatus]:
        """Status of every job."""
        return local_statuses(run)

    def cancel(self, run: Run, stages: Sequence[str] = ()) -> list[str]:
        """Ask the process that runs the jobs to stop them; stop them here when it is gone, or goes on with others."""
        record = run.submission
        meant = jobs_with(run.plan, stages or [stage.name for stage in run.plan.stages])
        active = {s.job: s for s in local_statuses(run).values() if s.job in meant and not s.state.ended}
        if record is None or not active:
            return []
        if not record.owner.is_here:
            raise StoreError(f"run {run} belongs to machine {record.owner.host}", fix="cancel it there")
        record_cancel(run, active)
        if record.owner.is_alive and not stages:
            kill([record.owner], signal.SIGTERM)
            return list(active)
        for stage in {status.stage for status in active.values()}:
            write_text(stopped_note(run, stage), f"{CANCELLED}\n")
        _stop_processes(run, list(active), self.grace_seconds)
        if not record.owner.is_alive:
            log = run.event_log()
            for status in active.values():
                record_end(log, replace(status, state=JobState.CANCELLED, reason=CANCELLED))
        return list(active)

    def _check_fit(self, job: Job) -> None:
        resources = job.resources
        if resources.num_nodes > 1:
            raise PlanError(f"job {job.name!r} asks for {resources.num_nodes} nodes, this machine is one")
        if self.machine.gpus and resources.num_gpus > len(self.machine.gpus):
            raise PlanError(
                f"job {job.name!r} asks for {resources.num_gpus} GPUs, this machine has {len(self.machine.gpus)}"
            )


def log_path(job: Job, run: Run) -> Path:
    """Log of a local job; on Slurm it is ``main_{job}_{job id}_srun.log`` in the same folder."""
    return Path(member_log(MAIN, job.name, str(Path(job.log_dir).absolute()), run.number))


@dataclass(frozen=True, kw_only=True)
class _Running:
    process: subprocess.Popen[bytes]
    gpus: tuple[str, ...]
    cores: int


class _LocalRun:
    """One execution: the states of its jobs and the processes that are alive."""

    def __init__(self, *, executor: LocalExecutor, run: Run, plan: Plan) -> None:
        self._executor = executor
        self._run = run
        self._plan = plan
        self._log = run.event_log()
        self._board = local_statuses(run)
        self._running: dict[str, _Running] = {}
        self._chains = ChainWatch(plan, run)

    def execute(self) -> None:
        """Run until every job has ended.

        Raises:
            JobFailed: a stage was not finished.
        """
        with StopSignals() as stop:
            try:
                while any(not status.state.ended for status in self._board.values()):
                    if stop.requested:
                        self._stop(stop)
                        break
                    self._settle()
                    self._start_ready()
                    self._show()
                    self._collect()
                    time.sleep(_PAUSE)
            finally:
                self._kill_all()
            self._show()
        problems = failure_report(self._run, self._plan, self._board)
        if stop.requested:
            failed = JobFailed(f"{self._why(stop)}: run the same command again to go on")
            failed.exit_code = 128 + stop.number
            raise failed
        if problems:
            raise JobFailed(problems)

    def _settle(self) -> None:
        """End the jobs that can never start, until nothing changes any more."""
        changed = True
        while changed:
            changed = False
            for job in self._pending():
                answer = self._cancelled(job) or self._chains.stopped(job) or outlook(job, self._states())
                if isinstance(answer, Never):
                    self._end(replace(self._board[job.name], state=answer.state, reason=answer.reason))
                    changed = True

    def _cancelled(self, job: Job) -> Never | None:
        if stopped_note(self._run, job.stage).exists():
            return Never(state=JobState.CANCELLED, reason=CANCELLED)
        return None

    def _start_ready(self) -> None:
        for job in self._pending():
            if outlook(job, self._states()) is READY and self._fits(job):
                self._start(job)

    def _fits(self, job: Job) -> bool:
        machine = self._executor.machine
        if machine.gpus and len(self._free_gpus()) < job.resources.num_gpus:
            return False
        busy = sum(running.cores for running in self._running.values())
        return not self._running or busy + _cores(job, machine) <= machine.cores

    def _start(self, job: Job) -> None:
        machine = self._executor.machine
        gpus = self._free_gpus()[: job.resources.num_gpus]
        environment = (
            dict(os.environ) | dict(self._executor.secrets) | dict([job_mark(self._run.folder, job.name).split("=", 1)])
        )
        if machine.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        with _open_log(log_path(job, self._run)) as output:
            process = subprocess.Popen(
                ["bash", "-c", _WAIT_FOR_THE_WORD, job.name, str(self._run.script_path(job.name))],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        self._running[job.name] = _Running(process=process, gpus=gpus, cores=_cores(job, machine))
        status = replace(
            self._board[job.name],
            state=JobState.RUNNING,
            process=ProcessId.of(process.pid),
            gpus=len(gpus),
            started_at=time.time(),
        )
        self._board[job.name] = status
        self._chains.started(job)
        record_start(self._log, status)
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError), process.stdin as word:
                word.write(b"go\n")

    def _collect(self) -> None:
        for name, running in list(self._running.items()):
            code = running.process.poll()
            if code is not None:
                del self._running[name]
                # Whatever it left behind would go on writing beside its successor.
                kill(marked(job_mark(self._run.folder, name)), signal.SIGKILL)
                self._end(self._judged(self._plan.job(name), code))

    def _judged(self, job: Job, code: int, *, stopped: str = "") -> JobStatus:
        """Status of a job that ended with ``code``: verdict and manifest decide, the code is for people."""
        status = replace(self._board[job.name], exit_code=code)
        verdict = self._run.verdict(job.name) if job.segment else None
        if verdict is not None and verdict.outcome is Outcome.CONTINUE:
            return replace(status, state=JobState.CONTINUED, reason=verdict.reason)
        if verdict is not None and verdict.outcome is Outcome.FAILED:
            return replace(status, state=JobState.FAILED, reason=verdict.reason)
        if verdict is None and (code != 0 or stopped):
            state = JobState.CANCELLED if stopped else JobState.FAILED
            reason = stopped or failed_member(self._run, job.name) or _describe(code)
            return replace(status, state=state, reason=reason)
        if verdict is None and job.segment:
            return replace(status, state=JobState.FAILED, reason="ended without a verdict")
        unsealed = self._unsealed(job)
        if unsealed:
            return replace(status, state=JobState.FAILED, reason=unsealed)
        return replace(status, state=JobState.SUCCEEDED)

    def _unsealed(self, job: Job) -> str | None:
        """Why the output of the job's stage is not finished although its jobs ended well, else None."""
        output = self._plan.stage(job.stage).output
        others = [other for other in self._plan.jobs_of(job.stage) if other.name != job.name]
        if output is None or (job.segment is None and any(not self._board[o.name].state.ended for o in others)):
            return None
        try:
            sealed = manifest.read(Path(output))
        except CheckpointError as error:
            return str(error)
        if sealed is None:
            return f"ended well, but {output} has no manifest: it is not finished"
        expected = self._run.identity(job.stage)
        if expected is not None and (sealed.identity is None or sealed.identity.digest != expected.digest):
            return f"ended well, but the manifest of {output} is not this run's"
        return None

    def _stop(self, stop: StopSignals) -> None:
        """TERM to everything, the grace period (cut short by a second signal), then KILL."""
        reason = self._why(stop)
        for job in self._pending():
            self._end(replace(self._board[job.name], state=JobState.CANCELLED, reason=reason))
        for running in self._running.values():
            _signal_group(running.process.pid, signal.SIGTERM)
        deadline = time.monotonic() + self._executor.grace_seconds
        while self._running and time.monotonic() < deadline and not stop.urgent:
            for name, running in list(self._running.items()):
                code = running.process.poll()
                if code is not None:
                    del self._running[name]
                    self._end(self._judged(self._plan.job(name), code, stopped=reason))
            self._show()
            time.sleep(_PAUSE)
        for name in list(self._running):
            _signal_group(self._running[name].process.pid, signal.SIGKILL)
            code = self._running.pop(name).process.wait()
            self._end(self._judged(self._plan.job(name), code, stopped=f"{reason}, killed"))

    def _why(self, stop: StopSignals) -> str:
        asked = any(cancel_requested(self._run, name) for name in self._board)
        return CANCELLED if asked else f"stopped by {stop.name}"

    def _kill_all(self) -> None:
        """Leave no process behind, however the loop ended."""
        for running in self._running.values():
            _signal_group(running.process.pid, signal.SIGKILL)
            running.process.wait()
        for name in self._board:
            if self._board[name].started_at is not None:
                kill(marked(job_mark(self._run.folder, name)), signal.SIGKILL)

    def _end(self, status: JobStatus) -> None:
        cancelling = not status.state.good and cancel_requested(self._run, status.job)
        self._board[status.job] = ended = replace(status, ended_at=time.time(), cancelling=cancelling).told_apart()
        if status.started_at is not None:
            # As a batch script would: the job that tells how the run ended looks there.
            code = 0 if ended.state is JobState.SUCCEEDED else ended.exit_code or 1
            (self._run.folder / "exits" / status.job).write_text(f"{code}\n")
        record_end(self._log, self._board[status.job])
        self._chains.ended(self._plan.job(status.job), self._board[status.job])

    def _pending(self) -> list[Job]:
        return [job for job in self._plan.jobs if self._board[job.name].state is JobState.PENDING]

    def _states(self) -> dict[str, JobState]:
        return {name: status.state for name, status in self._board.items()}

    def _free_gpus(self) -> tuple[str, ...]:
        taken = {gpu for running in self._running.values() for gpu in running.gpus}
        return tuple(gpu for gpu in self._executor.machine.gpus if gpu not in taken)

    def _show(self) -> None:
        if self._executor.watcher is not None:
            self._executor.watcher.update(self._run, self._board)


def _open_log(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "ab")
    except OSError as error:
        raise PlanError(
            f"the log cannot be written ({error.strerror})", where=str(path), fix="choose another --log_dir"
        ) from error


def _stop_processes(run: Run, jobs: list[str], grace_seconds: float) -> None:
    """Stop the jobs of a runner that is gone."""
    marks = [job_mark(run.folder, job) for job in jobs]
    kill((process for mark in marks for process in marked(mark)), signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while time.monotonic() < deadline and any(marked(mark) for mark in marks):
        time.sleep(_PAUSE)
    kill((process for mark in marks for process in marked(mark)), signal.SIGKILL)


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _cores(job: Job, machine: Machine) -> int:
    """Cores that a job is counted with: one for each of its processes."""
    processes = sum(member.tasks_per_node for member in job.members)
    return min(machine.cores, processes)


def _describe(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
