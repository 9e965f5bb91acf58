"""Hands the jobs of a plan to an executor of nemo-run, tells their states and stops them.

nemo-run's Slurm executor queues all jobs with their dependencies, and Slurm itself is asked for their states. All
others know no dependencies that hold: for them this machine starts each job when its turn comes, as it does with
processes of its own, and waits until the last one has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from skills_pipe.artifacts.atomic import write_json, write_text
from skills_pipe.errors import PlanError, StoreError
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.executors.base import Watcher
from skills_pipe.pipeline.executors.local import LocalExecutor
from skills_pipe.pipeline.executors.machine import Machine
from skills_pipe.pipeline.executors.nemo_run.environment import for_sbatch
from skills_pipe.pipeline.executors.nemo_run.target import Settings
from skills_pipe.pipeline.executors.nemo_run.tasks import Task, tasks
from skills_pipe.pipeline.executors.slurm.commands import Slurm
from skills_pipe.pipeline.executors.slurm.executor import SlurmExecutor
from skills_pipe.pipeline.executors.slurm.submission import hand_over, settle
from skills_pipe.pipeline.plan import Job, Plan, Stage
from skills_pipe.pipeline.records.process import ProcessId
from skills_pipe.pipeline.records.states import JobStatus
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.records.submission import SubmissionRecord
from skills_pipe.pipeline.scripts.place import locator
from skills_pipe.pipeline.scripts.render import export_lines, join, quote
from skills_pipe.pipeline.scripts.setting import SECRETS, Setting, code_dir, log_folder, log_patterns
from skills_pipe.pipeline.scripts.submission import adoption_script

HOME = "nemo-run"
"""Folder in that of the run for all that nemo-run writes. Not with ``_``: nemo-run would take the path for its own."""
_EXECUTOR = "executor.json"
_BRIDGE = Path(__file__).with_name("bridge.py")
_TIMEOUT_SECONDS = 900
_POLL_HERE, _POLL_AWAY = 1.0, 15.0
"""Seconds between two looks at a task."""
_SIDE_BY_SIDE = 1000
"""Jobs that may run elsewhere at once."""


@dataclass(frozen=True, kw_only=True)
class NemoRunExecutor:
    """Jobs of an executor of nemo-run.

    Attributes:
        cluster: needed for submitting only.
        secrets: variables for the jobs that must not stand in their scripts.
        after: ids of Slurm jobs of earlier runs that must end well first.
        code: folder of the cluster with the code of the jobs; None for that of the installed package.
        watcher: shown the states while jobs run that this machine waits for.
    """

    cluster: ClusterConfig | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    after: tuple[str, ...] = ()
    code: str | None = None
    watcher: Watcher | None = None

    def submit(self, run: Run, plan: Plan, actions: Mapping[str, str]) -> None:
        """Queue all jobs, or run them until the last one has ended."""
        if self.cluster is None:
            raise StoreError("a recorded run cannot be submitted again")
        settings = Settings.of(self.cluster)
        (run.folder / HOME).mkdir(mode=0o700, exist_ok=True)
        if self.secrets:
            write_text(run.folder / SECRETS, "\n".join(export_lines(self.secrets.items())) + "\n", mode=0o600)
        write_json(run.folder / HOME / _EXECUTOR, {"executor": settings.name})
        wanted = tasks(plan, self.cluster, run, self.code or str(code_dir()), self.after)
        if settings.target.queued:
            self._queue(run, plan, actions, wanted)
        else:
            self._attend(run, plan, actions, wanted)

    def statuses(self, run: Run) -> dict[str, JobStatus]:
        """Status of every job."""
        return _asked(run).statuses(run)

    def cancel(self, run: Run, stages: Sequence[str] = ()) -> list[str]:
        """Stop what still runs or waits."""
        return _asked(run).cancel(run, stages)

    def _queue(self, run: Run, plan: Plan, actions: Mapping[str, str], wanted: tuple[Task, ...]) -> None:
        """Let nemo-run queue all jobs, held; then record and release them as our own executor does."""
        cluster, settings = self._settings()
        slurm = Slurm(run.transport)
        slurm.require()
        of_jobs = {job.name: Setting(job=job, plan=plan, cluster=cluster, run=run) for job in plan.jobs}
        for folder in {log_folder(setting) for setting in of_jobs.values()}:
            Path(folder).mkdir(parents=True, exist_ok=True)
        draft = SubmissionRecord(
            executor="nemo_run",
            cluster=cluster.name,
            owner=ProcessId.current(),
            submitted_at=time.time(),
            actions=dict(actions),
            logs={name: log_patterns(setting)[1] for name, setting in of_jobs.items()},
        )
        if not wanted:
            run.write_submission(draft)
            return
        run.write_draft(draft)
        try:
            answer = _call_bridge("submit", settings.python, run, wanted, environment=for_sbatch(cluster))
            _raise_refusal(answer, cluster)
        except BaseException:
            with contextlib.suppress(StoreError):
                settle(run, slurm)
            raise
        hand_over(run, draft, adoption_script(plan, run, answer["ids"], self.after), slurm)

    def _attend(self, run: Run, plan: Plan, actions: Mapping[str, str], wanted: tuple[Task, ...]) -> None:
        cluster, settings = self._settings()
        _raise_refusal(_call_bridge("check", settings.python, run, wanted), cluster)
        for number, task in enumerate(wanted, start=1):
            _write_starter(task, settings, run, f"{run.expname}_{number}")
        machine = Machine(cores=1 if settings.target.here else _SIDE_BY_SIDE)
        local = LocalExecutor(machine=machine, watcher=self.watcher)
        local.submit(_Attended(run.folder, cluster.name), _as_here(plan, cluster), actions)

    def _settings(self) -> tuple[ClusterConfig, Settings]:
        if self.cluster is None:
            raise StoreError("a recorded run cannot be submitted again")
        return self.cluster, Settings.of(self.cluster)


class _Attended(Run):
    """The run as the local executor sees it: a job is the process that waits for its task."""

    def __init__(self, folder: Path, cluster: str) -> None:
        super().__init__(folder)
        self._cluster = cluster

    def script_path(self, job: str) -> Path:
        """What starts the task of a job, and waits for it."""
        return _starter(self, job)

    def write_submission(self, record: SubmissionRecord) -> None:
        """Record who really runs it."""
        super().write_submission(replace(record, executor="nemo_run", cluster=self._cluster))


def _raise_refusal(answer: Mapping[str, Any], cluster: ClusterConfig) -> None:
    if "error" in answer:
        raise PlanError(f"nemo-run refused: {answer['error']}", where=f"nemo_run of cluster {cluster.name!r}")


def _as_here(plan: Plan, cluster: ClusterConfig) -> Plan:
    """The plan with the paths that this machine has for logs and outputs."""
    locate = locator(cluster, plan)

    def of_job(job: Job) -> Job:
        return replace(job, log_dir=str(locate(job.log_dir)))

    def of_stage(stage: Stage) -> Stage:
        return replace(stage, output=str(locate(stage.output)) if stage.output else None)

    return replace(plan, jobs=tuple(map(of_job, plan.jobs)), stages=tuple(map(of_stage, plan.stages)))


def _asked(run: Run) -> LocalExecutor | SlurmExecutor:
    """Who knows the jobs of a submitted run."""
    executor = json.loads((run.folder / HOME / _EXECUTOR).read_text())["executor"]
    return SlurmExecutor(transport=run.transport) if executor == "slurm" else LocalExecutor(machine=Machine(cores=1))


def _starter(run: Run, job: str) -> Path:
    return run.folder / HOME / f"{job}.sh"


def _write_starter(task: Task, settings: Settings, run: Run, experiment: str) -> None:
    request = run.folder / HOME / f"{task.name}.json"
    poll = _POLL_HERE if settings.target.here else _POLL_AWAY
    value = {"title": run.expname, "experiment": experiment, "poll_seconds": poll, "tasks": [task.to_json()]}
    write_json(request, value)
    lines = [
        "#!/bin/bash",
        f"# Starts job {task.name} by nemo-run and waits for its end.",
        f"export NEMORUN_HOME={quote(str(run.folder / HOME))}",
        f"exec {join([settings.python, '-P', str(_BRIDGE), 'run', str(request)])}",
    ]
    _starter(run, task.name).write_text("\n".join(lines) + "\n")


def _call_bridge(
    word: str, python: str, run: Run, wanted: tuple[Task, ...], *, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The answer of the process that calls nemo-run.

    Args:
        environment: all that is left of its environment once it has filled in the variables of keywords.
    """
    # With this one nemo-run thinks that it is in a job.
    around = {name: value for name, value in os.environ.items() if name != "SLURM_PROCID"}
    request = {
        "title": run.expname,
        "experiment": f"{run.expname}_{run.number}",
        "tasks": [task.to_json() for task in wanted],
        "environment": environment,
    }
    try:
        ended = subprocess.run(
            [python, "-P", str(_BRIDGE), word],
            input=json.dumps(request),
            env=around | {"NEMORUN_HOME": str(run.folder / HOME)},
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_SECONDS,
        )
    except OSError as error:
        raise PlanError(
            f"{python} cannot be started ({error.strerror})",
            where="nemo_run.python",
            fix="name the interpreter of an environment that has nemo-run",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise PlanError(f"nemo-run gave no answer in {_TIMEOUT_SECONDS} seconds", fix="try again") from error
    try:
        answer: dict[str, Any] = json.loads(ended.stdout)
    except ValueError:
        last = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
        return {"error": last, "ids": {}}
    return answer
