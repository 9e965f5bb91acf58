"""Records of runs, readable from any machine that sees the job folder.

{job_dir}/experiments/{expname}/run-{N}/
    plan.json            what was to be done
    submission.json      who runs it, which stages run, job ids
    identities/          one file per stage: what its output is made of
    scripts/             the script of each job
    events/              what happened, one file per writer
    verdicts/ progress/  written by the jobs
    save-now/            a file here asks a job to save and end
    chain/               why a chain of training jobs was stopped
    exits/               exit codes, written by batch scripts
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from skills_pipe.artifacts.atomic import write_json, write_text
from skills_pipe.artifacts.events import Event, EventLog, read_events
from skills_pipe.artifacts.identity import Identity
from skills_pipe.artifacts.progress import Progress
from skills_pipe.artifacts.verdict import Verdict
from skills_pipe.errors import PlanError, StoreError, did_you_mean
from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.records.process import ProcessId

_RUN = re.compile(r"run-(\d+)")
_EXPNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]*")


@dataclass(frozen=True, kw_only=True)
class SubmissionRecord:
    """What is known once a plan has been handed to an executor.

    Attributes:
        executor: ``local`` or ``slurm``.
        cluster: name of the cluster configuration.
        owner: the process that submitted it; it also runs a local one.
        submitted_at: Unix time in seconds.
        actions: stage -> ``run``, ``continue``, ``skip``, ...: see ``decide.Action``.
        job_ids: job -> id that the scheduler gave; only jobs that were handed over are here.
        logs: job -> path of its log, ``%j`` already replaced.
    """

    executor: str
    cluster: str
    owner: ProcessId
    submitted_at: float
    actions: Mapping[str, str] = field(default_factory=dict)
    job_ids: Mapping[str, str] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SubmissionRecord:
        """Read back what :meth:`to_json` gave."""
        return cls(**{**value, "owner": ProcessId.from_json(value["owner"])})

    def to_json(self) -> dict[str, Any]:
        """Plain value for ``submission.json``."""
        return asdict(self)


class Run:
    """The folder of one run; cheap to make, reads from disk when asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return f"{self.expname}/{self.folder.name}"

    @property
    def at(self) -> str:
        """Path of the folder on the cluster, as its jobs and login nodes see it."""
        return str(self.folder)

    @property
    def expname(self) -> str:
        """Name of the experiment."""
        return self.folder.parent.name

    @property
    def number(self) -> int:
        """3 for the folder ``run-3``."""
        return int(self.folder.name.removeprefix("run-"))

    @cached_property
    def plan(self) -> Plan:
        """The plan of this run."""
        return Plan.from_json(json.loads((self.folder / "plan.json").read_text()))

    @property
    def submission(self) -> SubmissionRecord | None:
        """How it was submitted, None when that has not happened (or was refused)."""
        try:
            return SubmissionRecord.from_json(json.loads((self.folder / "submission.json").read_text()))
        except FileNotFoundError:
            return None

    def write_plan(self, plan: Plan) -> None:
        """Record the plan."""
        write_text(self.folder / "plan.json", plan.to_text())

    def write_submission(self, record: SubmissionRecord) -> None:
        """Record (or update) the submission."""
        write_json(self.folder / "submission.json", record.to_json())

    def write_identity(self, stage: str, identity: Identity) -> None:
        """Record the identity of a stage; its jobs seal it into the manifest."""
        self.identity_path(stage).write_text(json.dumps(identity.to_json(), indent=2, sort_keys=True) + "\n")

    def write_script(self, job: str, text: str) -> None:
        """Put the script of a job where the scheduler finds it."""
        # Not flushed to disk one by one: all of this counts only once submission.json is there.
        self.script_path(job).write_text(text)

    def identity(self, stage: str) -> Identity | None:
        """Identity of a stage of this run, None when there is none on record."""
        try:
            return Identity.from_json(json.loads(self.identity_path(stage).read_text()))
        except FileNotFoundError:
            return None

    def verdict(self, job: str) -> Verdict | None:
        """The verdict that a job has written, None when it has not."""
        return Verdict.read(self.verdict_path(job))

    def progress(self, job: str) -> Progress | None:
        """How far a job says it is."""
        return Progress.read(self.progress_path(job))

    def exit_code(self, job: str) -> int | None:
        """The exit code that a batch script has left, None when it has not ended (or was killed)."""
        try:
            return int((self.folder / "exits" / job).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def identity_path(self, stage: str) -> Path:
        """File with the identity of a stage."""
        return self.folder / "identities" / f"{stage}.json"

    def script_path(self, job: str) -> Path:
        """Script of a job."""
        return self.folder / "scripts" / f"{job}.sh"

    def verdict_path(self, job: str) -> Path:
        """File in which a training job leaves its verdict."""
        return self.folder / "verdicts" / f"{job}.json"

    def progress_path(self, job: str) -> Path:
        """File in which a job reports how far it is."""
        return self.folder / "progress" / f"{job}.json"

    def make_folders(self) -> None:
        """Make the folders that jobs write to."""
        for name in ("events", "identities", "scripts", "verdicts", "progress", "save-now", "chain", "exits"):
            (self.folder / name).mkdir(exist_ok=True)

    def event_log(self) -> EventLog:
        """A writer of events for this process."""
        return EventLog(self.folder / "events")

    def events(self) -> list[Event]:
        """All events so far, in the order of their time."""
        return read_events(self.folder / "events")


class RunStore:
    """All runs below a job folder."""

    def __init__(self, job_dir: Path) -> None:
        self.root = job_dir / "experiments"

    def create(self, expname: str) -> Run:
        """Claim the next run folder of an experiment; two processes never get the same one."""
        _check_expname(expname)
        parent = self.root / expname
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the records of runs cannot be written ({error.strerror})",
                where=str(parent),
                fix="choose another folder with $SKILLS_PIPE_JOB_DIR, or job_dir of the cluster configuration",
            ) from error
        number = self.next_run(expname).number
        while True:
            run = Run(parent / f"run-{number}")
            try:
                run.folder.mkdir()
            except FileExistsError:
                number += 1
                continue
            run.make_folders()
            return run

    def next_run(self, expname: str) -> Run:
        """The run that :meth:`create` would make now, for showing what would happen."""
        _check_expname(expname)
        runs = self.runs(expname)
        return Run(self.root / expname / f"run-{runs[0].number + 1 if runs else 1}")

    def runs(self, expname: str) -> list[Run]:
        """Runs of an experiment, the newest first; none for an unknown one."""
        folder = self.root / expname
        if not folder.is_dir():
            return []
        runs = [Run(entry) for entry in folder.iterdir() if _RUN.fullmatch(entry.name)]
        return sorted(runs, key=lambda run: run.number, reverse=True)

    def all(self) -> list[Run]:
        """Every submitted run, the newest first."""
        if not self.root.is_dir():
            return []
        found = [
            (record.submitted_at, run)
            for folder in self.root.iterdir()
            for run in self.runs(folder.name)
            if (record := run.submission) is not None
        ]
        return [run for _, run in sorted(found, key=lambda pair: pair[0], reverse=True)]

    def latest(self, expname: str) -> Run:
        """The newest submitted run of an experiment.

        Raises:
            StoreError: there is no such experiment, or nothing of it was ever submitted.
        """
        for run in self.runs(expname):
            if run.submission is not None:
                return run
        names = [folder.name for folder in self.root.iterdir()] if self.root.is_dir() else []
        if expname in names:
            raise StoreError(f"no run of experiment {expname!r} was ever submitted", where=str(self.root / expname))
        raise StoreError(
            f"there is no experiment {expname!r}",
            where=str(self.root),
            fix=did_you_mean(expname, names) or "`ns status` lists all",
        )

    def find(self, name: str) -> Run:
        """The run that ``name`` means: ``expname`` (its newest), ``expname/run-3`` or a run folder.

        Raises:
            StoreError: there is none.
        """
        path = Path(name)
        for folder in (path, self.root / name):
            if _RUN.fullmatch(folder.name) and (folder / "plan.json").is_file():
                return Run(folder.absolute())
        if _RUN.fullmatch(path.name) and len(path.parts) == 2:
            runs = [run.folder.name for run in self.runs(path.parts[0])]
            if runs:
                raise StoreError(f"experiment {path.parts[0]!r} has no {path.name}", fix=f"it has {', '.join(runs)}")
        return self.latest(name)


def _check_expname(expname: str) -> None:
    if not _EXPNAME.fullmatch(expname):
        raise PlanError(
            f"{expname!r} cannot be the name of an experiment",
            where="--expname",
            fix="use letters, digits and . _ - + = @ only: it names a folder and the jobs",
        )
