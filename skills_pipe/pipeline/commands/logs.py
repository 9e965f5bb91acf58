"""``ns logs``: the logs of a run, and with ``-f`` what is added to them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from skills_pipe.errors import StoreError, did_you_mean
from skills_pipe.pipeline.commands.record_options import RUN_HELP, RecordOptions
from skills_pipe.pipeline.console.command import Command as LauncherCommand
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.options.declaration import argument, option, switch
from skills_pipe.pipeline.records.failures import tail
from skills_pipe.pipeline.records.states import JobStatus
from skills_pipe.pipeline.records.store import Run, RunStore
from skills_pipe.pipeline.scripts.setting import batch_log

_PAUSE_SECONDS = 0.3


@dataclass(frozen=True, kw_only=True)
class LogsOptions(RecordOptions):
    """Logs."""

    expname: str = argument(metavar="EXPNAME", help=RUN_HELP)
    stage: str | None = argument(None, metavar="STAGE", help="stage or job; none shows all")
    follow: bool = switch(on=("-f", "--follow"), help="go on showing what is added, until the jobs have ended")
    lines: int = option(50, help="how many lines from the end of each log; 0 shows it whole")


def run(options: LogsOptions, extras: tuple[str, ...]) -> int:
    """Print the logs of the jobs that were asked for, in the order of the plan."""
    store = options.store
    found = _run_with_logs(store, options.expname, options.stage)
    names = _jobs(found, options.stage)
    shown: dict[Path, int] = {}
    statuses = statuses_of(found)
    for name in names:
        log = _log(statuses[name])
        if log is not None:
            shown[log] = log.stat().st_size
            _print_log(name, log, options.lines)
    if options.follow:
        for text in _added(found, names, shown):
            sys.stdout.write(text)
            sys.stdout.flush()
    elif not shown:
        raise StoreError(f"no job of {found} has written a log yet", where=str(found.folder))
    return 0


COMMAND = LauncherCommand(options=LogsOptions, run=run)


def _run_with_logs(store: RunStore, name: str, stage: str | None) -> Run:
    """The run that ``name`` means; when it skipped the stage, the newest older one that ran it."""
    found = store.find(name)
    older = [run for run in store.runs(found.expname) if run.number <= found.number and run.submission is not None]
    for run in older:
        if any(stage in (None, status.stage, status.job) for status in statuses_of(run).values()):
            return run
    return found


def _jobs(run: Run, stage: str | None) -> list[str]:
    statuses = statuses_of(run)
    names = [name for name, status in statuses.items() if stage in (None, status.stage, name)]
    if not names:
        known = [known.name for known in run.plan.stages]
        raise StoreError(
            f"{run} has no job of {stage!r}" if stage else f"{run} had nothing to run",
            where=str(run.folder),
            fix=(did_you_mean(stage, known) or f"its stages are {', '.join(known)}") if stage else None,
        )
    return names


def _log(status: JobStatus) -> Path | None:
    """The log of the program, or that of its batch script while the program has none; None without both."""
    logs = [Path(status.log), batch_log(Path(status.log))] if status.log else []
    return next((log for log in logs if log.exists() and log.stat().st_size), None)


def _print_log(name: str, log: Path, lines: int) -> None:
    sys.stdout.write(f"==> {name}: {log} <==\n")
    text = "\n".join(tail(log, lines)) if lines else log.read_text(errors="replace").rstrip("\n")
    sys.stdout.write(f"{text}\n\n")


def _added(run: Run, names: list[str], shown: dict[Path, int]) -> Iterator[str]:
    """What the jobs add to their logs, until all of them have ended."""
    last = ""
    while True:
        statuses = statuses_of(run)
        for name in names:
            log = _log(statuses[name])
            if log is None or log.stat().st_size <= shown.get(log, 0):
                continue
            with open(log, "rb") as file:
                file.seek(shown.get(log, 0))
                data = file.read()
            shown[log] = shown.get(log, 0) + len(data)
            yield ("" if name == last or len(names) == 1 else f"==> {name} <==\n") + data.decode(errors="replace")
            last = name
        if all(statuses[name].state.ended for name in names):
            return
        time.sleep(_PAUSE_SECONDS)
