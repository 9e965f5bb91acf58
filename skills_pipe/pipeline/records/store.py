"""Records of runs, readable from any machine that sees the job folder.

{job_dir}/experiments/{expname}/run-{N}/
    plan.json            what was to be done
    submitting.json      the same without ids, while it is being submitted to Slurm
    submission.json      who runs it, which stages run, job ids
    identities/          one file per stage: what its output is made of
    scripts/             the script of each job
    events/              what happened, one file per writer
    verdicts/ progress/ warnings/
                         written by the jobs
    save-now/            a file here asks a job to save and end
    chain/               why a chain of training jobs was stopped
    exits/               exit codes, written by batch scripts
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from skills_pipe.artifacts.atomic import write_json, write_text
from skills_pipe.artifacts.events import Event, EventLog, read_events
from skills_pipe.artifacts.identity import Identity
from skills_pipe.artifacts.progress import Progress
from skills_pipe.artifacts.verdict import Verdict
from skills_pipe.artifacts.warnings import read_warnings
from skills_pipe.errors import PlanError, StoreError, did_you_mean
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.records.submission import SubmissionRecord
from skills_pipe.pipeline.site.site import HERE, Facts, Site, Want, look, parse_facts
from skills_pipe.pipeline.transport.base import Transport
from skills_pipe.pipeline.transport.here import Here
from skills_pipe.pipeline.transport.reach import is_behind_ssh

if TYPE_CHECKING:
    from skills_pipe.pipeline.site.along import Along
    from skills_pipe.pipeline.site.mirror import Mirror, MirroredRun

_RUN = re.compile(r"run-(\d+)")
_EXPNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]*")


class Run:
    """The folder of one run; cheap to make, reads from disk when asked.

    Attributes:
        folder: where this machine reads and writes it; behind ssh that is a copy.
    """

    def __init__(self, folder: Path, *, mirrored: MirroredRun | None = None) -> None:
        self.folder = folder
        self._mirrored = mirrored

    def __str__(self) -> str:
        return f"{self.expname}/{self.folder.name}"

    @property
    def at(self) -> str:
        """Path of the folder on the cluster, as its jobs and login nodes see it."""
        return self._mirrored.at if self._mirrored else str(self.folder)

    @property
    def transport(self) -> Transport:
        """How programs run where its cluster's scheduler can be reached; what was written to the folder goes along."""
        return self._mirrored or Here()

    @property
    def site(self) -> Site:
        """The files of its cluster: logs, outputs."""
        return self._mirrored.site if self._mirrored else HERE

    def refresh(self) -> None:
        """See to it that what is read is not older than this call."""
        if self._mirrored:
            self._mirrored.refresh()

    def flush(self) -> None:
        """See to it that the cluster has what was written to the folder."""
        if self._mirrored:
            self._mirrored.flush()

    @property
    def is_ours(self) -> bool:
        """Whether this user may write there; what somebody else has submitted can only be looked at."""
        return os.access(self.folder / "events", os.W_OK)

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

    @property
    def draft(self) -> SubmissionRecord | None:
        """The record of a submission that somebody has begun and not ended, None when there is none."""
        try:
            return SubmissionRecord.from_json(json.loads((self.folder / "submitting.json").read_text()))
        except FileNotFoundError:
            return None

    def write_draft(self, draft: SubmissionRecord) -> None:
        """Record that jobs are about to be queued."""
        write_json(self.folder / "submitting.json", draft.to_json())

    def drop_draft(self) -> None:
        """Nothing of the submission is open any more."""
        (self.folder / "submitting.json").unlink(missing_ok=True)

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

    def write_submit_script(self, text: str) -> None:
        """Keep the script that queues the jobs of this run."""
        (self.folder / "submit.sh").write_text(text)

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

    def warnings(self, job: str) -> tuple[str, ...]:
        """What a job says that its user should read, as sentences."""
        return read_warnings(self.warnings_path(job))

    def exit_code(self, job: str) -> int | None:
        """The exit code that a batch script has left, None when it has not ended (or was killed)."""
        try:
            return int((self.folder / "exits" / job).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def exit_time(self, job: str) -> float | None:
        """Unix time at which a batch script has ended, None when it has not (or was killed)."""
        try:
            return (self.folder / "exits" / job).stat().st_mtime
        except FileNotFoundError:
            return None

    def why_stopped(self, stage: str) -> str:
        """Why the chain of a stage was stopped, empty when it was not."""
        try:
            return (self.folder / "chain" / f"{stage}.stopped").read_text().strip()
        except FileNotFoundError:
            return ""

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

    def warnings_path(self, job: str) -> Path:
        """File in which a job leaves what its user should read."""
        return self.folder / "warnings" / f"{job}.json"

    def make_folders(self) -> None:
        """Make the folders that jobs write to."""
        folders = ("events", "identities", "scripts", "verdicts", "progress", "warnings", "save-now", "chain", "exits")
        for name in folders:
            (self.folder / name).mkdir(exist_ok=True)

    def event_log(self) -> EventLog:
        """A writer of events for this process."""
        return EventLog(self.folder / "events")

    def events(self) -> list[Event]:
        """All events so far, in the order of their time."""
        return read_events(self.folder / "events")


def store_of(cluster: ClusterConfig) -> RunStore:
    """The runs of a cluster: those in its job folder, or copies of them where only ssh leads there."""
    if not is_behind_ssh(cluster):
        return RunStore(Path(cluster.job_dir), flag=cluster.flag)
    # Imported here: few clusters are behind ssh.
    from skills_pipe.pipeline.site.mirror import Mirror

    mirror = Mirror.of(cluster)
    return RunStore(mirror.folder, mirror=mirror, flag=cluster.flag)


class RunStore:
    """All runs below a job folder.

    Attributes:
        root: folder of all experiments, as this machine sees it.
        flag: what the commands in messages end with: `` --cluster=slurm``.
    """

    def __init__(self, job_dir: Path, *, mirror: Mirror | None = None, flag: str = "") -> None:
        self.root = job_dir / "experiments"
        self.flag = flag
        self._mirror = mirror

    @property
    def site(self) -> Site:
        """The files of the cluster."""
        return self._mirror.site if self._mirror else HERE

    @property
    def place(self) -> str:
        """Folder of all experiments, as the cluster sees it."""
        return f"{self._mirror.at}/experiments" if self._mirror else str(self.root)

    def look(
        self, names: Iterable[str], wanted: Mapping[str, Iterable[Want]], *, along: Along | None = None
    ) -> dict[str, Facts]:
        """Facts about paths of the cluster, and in the same round trip the runs of the experiments ``names``.

        The methods below bring the runs that they are asked for up to date themselves, but for :meth:`next_run`.

        Args:
            along: runs in the same round trip.
        """
        actions = [look(wanted), *([along.action()] if along else [])]
        facts, *more = self._mirror.pull(names, *actions) if self._mirror else self.site.ask(*actions)
        if along:
            along.take(more[0])
        return parse_facts(facts)

    def create(self, expname: str) -> Run:
        """Claim the next run folder of an experiment; two processes never get the same one."""
        run = self.next_run(expname)
        while "refused" in self.site.ask({"do": "make_run", "folder": run.at})[0]:
            run = self._run(self.root / expname / f"run-{run.number + 1}")
        return self.open(run)

    def open(self, run: Run) -> Run:
        """A run whose folder was made just now, on the cluster."""
        if self._mirror:
            self._mirror.open(str(run))
        return self._run(run.folder)

    def next_run(self, expname: str) -> Run:
        """The run that :meth:`create` would make now, for showing what would happen."""
        _check_expname(expname)
        runs = self._known_runs(expname)
        return self._run(self.root / expname / f"run-{runs[0].number + 1 if runs else 1}")

    def at(self, folder: str) -> Run:
        """The run in this folder of the cluster, below this job folder or another."""
        if self._mirror is None:
            return Run(Path(folder))
        other = self._mirror.sibling(str(PurePosixPath(folder).parents[2]))
        name = "/".join(PurePosixPath(folder).parts[-2:])
        other.pull([name])
        return RunStore(other.folder, mirror=other)._run(other.root / name)

    def runs(self, expname: str) -> list[Run]:
        """Runs of an experiment, the newest first; none for an unknown one."""
        self._pull([expname])
        return self._known_runs(expname)

    def _known_runs(self, expname: str) -> list[Run]:
        folder = self.root / expname
        if not folder.is_dir():
            return []
        runs = [self._run(entry) for entry in folder.iterdir() if _RUN.fullmatch(entry.name)]
        return sorted(runs, key=lambda run: run.number, reverse=True)

    def all(self) -> list[Run]:
        """Every submitted run, the newest first."""
        self._pull(None)
        if not self.root.is_dir():
            return []
        found = [
            (record.submitted_at, run)
            for folder in self.root.iterdir()
            for run in self._known_runs(folder.name)
            if (record := run.submission or run.draft) is not None
        ]
        return [run for _, run in sorted(found, key=lambda pair: pair[0], reverse=True)]

    def latest(self, expname: str) -> Run:
        """The newest submitted run of an experiment.

        Raises:
            StoreError: there is no such experiment, or nothing of it was ever submitted.
        """
        for run in self.runs(expname):
            if run.submission is not None or run.draft is not None:
                return run
        names = [folder.name for folder in self.root.iterdir()] if self.root.is_dir() else []
        if expname in names:
            raise StoreError(f"no run of experiment {expname!r} was ever submitted", where=f"{self.place}/{expname}")
        raise StoreError(
            f"there is no experiment {expname!r}",
            where=self.place,
            fix=did_you_mean(expname, names) or self._where_to_look(),
        )

    def _where_to_look(self) -> str:
        return f"`ns status{self.flag}` lists all" + (
            "" if self.flag else ", and with --cluster=NAME those of a cluster"
        )

    def find(self, name: str) -> Run:
        """The run that ``name`` means: ``expname`` (its newest), ``expname/run-3`` or a run folder.

        Raises:
            StoreError: there is none.
        """
        path = Path(name)
        if self._mirror and path.is_absolute() and _RUN.fullmatch(path.name):
            return self.at(name)
        if _RUN.fullmatch(path.name):
            self._pull([name])
        for folder in (path, self.root / name):
            if _RUN.fullmatch(folder.name) and (folder / "plan.json").is_file():
                return self._run(folder.absolute())
        if _RUN.fullmatch(path.name) and len(path.parts) == 2:
            runs = [run.folder.name for run in self.runs(path.parts[0])]
            if runs:
                raise StoreError(f"experiment {path.parts[0]!r} has no {path.name}", fix=f"it has {', '.join(runs)}")
        return self.latest(name)

    def _run(self, folder: Path) -> Run:
        return Run(folder, mirrored=self._mirror.run(f"{folder.parent.name}/{folder.name}") if self._mirror else None)

    def _pull(self, names: list[str] | None) -> None:
        if self._mirror:
            self._mirror.pull(names)


def _check_expname(expname: str) -> None:
    if not _EXPNAME.fullmatch(expname):
        raise PlanError(
            f"{expname!r} cannot be the name of an experiment",
            where="--expname",
            fix="use letters, digits and . _ - + = @ only: it names a folder and the jobs",
        )
