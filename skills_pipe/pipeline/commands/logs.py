"""``ns logs``: the logs of a run, and with ``-f`` what is added to them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass

from skills_pipe.errors import OptionError, StoreError, did_you_mean
from skills_pipe.pipeline.console.command import Command as LauncherCommand
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.options.declaration import argument, option, switch
from skills_pipe.pipeline.options.records import RUN_HELP, RecordOptions
from skills_pipe.pipeline.plan import MAIN
from skills_pipe.pipeline.records.logs import BATCH, LogFile, LogReader, log_files
from skills_pipe.pipeline.records.store import Run, RunStore

ALL = "all"
_READ_SECONDS = {"local": 0.3}
_READ_SECONDS_OF_CLUSTERS = 2.0
"""Between two looks at the logs."""
_ASK_SECONDS = {"local": 0.3}
_ASK_SECONDS_OF_CLUSTERS = 10.0
"""Between two questions whether the jobs have ended: a controller of Slurm has many who ask."""


@dataclass(frozen=True, kw_only=True)
class LogsOptions(RecordOptions):
    """Logs."""

    expname: str = argument(metavar="EXPNAME", help=RUN_HELP)
    stage: str | None = argument(None, metavar="STAGE", help="stage or job; none shows all")
    follow: bool = switch(on=("-f", "--follow"), help="go on showing what is added, until the jobs have ended")
    lines: int = option(50, help="how many lines from the end of each log; 0 shows it whole")
    part: str | None = option(
        None,
        metavar="PART",
        help="of jobs of several commands the one whose log is shown: main, server, sandbox, ...; batch is the script "
        "of the job, all is everything; without it main and batch",
    )


def run(options: LogsOptions, extras: tuple[str, ...]) -> int:
    """Print the logs of the jobs that were asked for, in the order of the plan; 130 when somebody stops reading."""
    if options.lines < 0:
        raise OptionError(f"--lines is {options.lines}", fix="set it to 0 for everything, or to a number of lines")
    found = _run_with_logs(options.store, options.expname, options.stage)
    jobs = _jobs(found, options.stage)
    files = _files(found, jobs, options.part)
    reader, screen = LogReader(found, files), _Screen()
    try:
        screen.show(reader.ends(options.lines), titles=True)
        if options.follow:
            _follow(found, jobs, reader, screen)
    except KeyboardInterrupt:
        print(f"\n{found} goes on; {options.typed(found).command('cancel')} would stop it", file=sys.stderr)
        return 130
    if screen.last is None:
        _say_nothing(found, jobs)
    return 0


COMMAND = LauncherCommand(options=LogsOptions, run=run)


class _Screen:
    """Shows pieces of logs, with a line above each that is of another log than the one before."""

    def __init__(self) -> None:
        self.last: LogFile | None = None

    def show(self, pieces: Iterable[tuple[LogFile, str]], *, titles: bool = False) -> None:
        """Print pieces; with ``titles`` each has its line."""
        for file, text in pieces:
            if titles or file != self.last:
                sys.stdout.write(f"{'' if self.last is None else chr(10)}==> {file.title}: {file.path} <==\n")
            sys.stdout.write(text)
            self.last = file
        sys.stdout.flush()


def _follow(run: Run, jobs: list[str], reader: LogReader, screen: _Screen) -> None:
    """Show what the jobs add, until all of them have ended; the log of the next segment goes on where one ends."""
    record = run.submission
    executor = record.executor if record else ""
    pause = _READ_SECONDS.get(executor, _READ_SECONDS_OF_CLUSTERS)
    asked, ended = 0.0, False
    while True:
        if time.monotonic() - asked >= _ASK_SECONDS.get(executor, _ASK_SECONDS_OF_CLUSTERS):
            statuses = statuses_of(run)
            ended, asked = all(statuses[name].state.ended for name in jobs), time.monotonic()
        # Read after they were asked about: what has ended adds nothing more.
        while pieces := reader.added():
            screen.show(pieces)
        if ended:
            return
        time.sleep(pause)


def _run_with_logs(store: RunStore, name: str, stage: str | None) -> Run:
    """The run that ``name`` means; when it skipped the stage, the newest older one that ran it."""
    found = store.find(name)
    for run in store.runs(found.expname):
        if run.number <= found.number and _submitted(run, stage):
            return run
    return found


def _submitted(run: Run, stage: str | None) -> list[str]:
    """Jobs of a stage, or the job, of that name; all for None."""
    record = run.submission
    ids = record.job_ids if record else {}
    return [job.name for job in run.plan.jobs if job.name in ids and stage in (None, job.stage, job.name)]


def _jobs(run: Run, stage: str | None) -> list[str]:
    names = _submitted(run, stage)
    if not names:
        known = [known.name for known in run.plan.stages]
        raise StoreError(
            f"{run} has no job of {stage!r}" if stage else f"{run} had nothing to run",
            where=str(run.folder),
            fix=(did_you_mean(stage, known) or f"its stages are {', '.join(known)}") if stage else None,
        )
    return names


def _files(run: Run, jobs: list[str], part: str | None) -> list[LogFile]:
    files = [file for name in jobs for file in log_files(run, name)]
    known = list(dict.fromkeys(file.part for file in files))
    wanted = {MAIN, BATCH} if part is None else set(known) if part == ALL else {part}
    chosen = [file for file in files if file.part in wanted]
    if not chosen:
        raise OptionError(
            f"no job of {run} has a part {part!r}",
            where="--part",
            fix=did_you_mean(part or "", known) or f"they have {', '.join(known)}",
        )
    return chosen


def _say_nothing(run: Run, jobs: list[str]) -> None:
    """Nothing was shown: an error while something may still come, else a fact.

    Raises:
        StoreError: some of the jobs have not ended.
    """
    statuses = statuses_of(run)
    left = [name for name in jobs if not statuses[name].state.ended]
    if left:
        words = ", ".join(f"{name} is {statuses[name].state.value}" for name in left)
        raise StoreError(f"no job of {run} has written a log yet", where=words, fix="try again later, or add -f")
    print(f"{', '.join(jobs)}: ended without a word")
