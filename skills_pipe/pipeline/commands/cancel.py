"""``ns cancel``: stop what still runs or waits, a whole chain at once."""

from __future__ import annotations

import time
from dataclasses import dataclass

from skills_pipe.errors import StoreError, did_you_mean
from skills_pipe.pipeline.console.command import Command as LauncherCommand
from skills_pipe.pipeline.executors.registry import cancel_run, statuses_of
from skills_pipe.pipeline.options.declaration import argument, option, switch
from skills_pipe.pipeline.options.records import RUN_HELP, RecordOptions
from skills_pipe.pipeline.records.store import Run, RunStore

_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class CancelOptions(RecordOptions):
    """Cancel."""

    expname: str = argument(metavar="EXPNAME", help=f"{RUN_HELP}; of an experiment all runs that still run are meant")
    stage: str | None = option(
        None, metavar="STAGE", help="stop this stage only, with all that waits for it; the rest goes on"
    )
    wait: bool = switch(help="return when the jobs are gone, not as soon as they are told to")


def run(options: CancelOptions, extras: tuple[str, ...]) -> int:
    """Stop the jobs that have not ended."""
    store = options.store
    newest = store.find(options.expname)
    runs = _runs(store, newest, options.expname)
    _check_stage(runs, options.stage)
    stages = (options.stage,) if options.stage else ()
    stopped = {}
    for each in runs:
        if options.stage is None or options.stage in [stage.name for stage in each.plan.stages]:
            stopped[each] = cancel_run(each, stages)
            if stopped[each]:
                print(f"{each}: stopping {', '.join(stopped[each])}", flush=True)
    if not any(stopped.values()):
        print(f"{newest}: nothing runs or waits")
    if options.wait:
        for each, jobs in stopped.items():
            _wait(each, jobs)
    return 0


COMMAND = LauncherCommand(options=CancelOptions, run=run)


def _runs(store: RunStore, found: Run, name: str) -> list[Run]:
    """The run that is named, or of an experiment all that were submitted: an older one may still write its outputs."""
    if name != found.expname:
        return [found]
    return [run for run in store.runs(name) if run.submission is not None or run.draft is not None]


def _check_stage(runs: list[Run], stage: str | None) -> None:
    known = list(dict.fromkeys(known.name for run in runs for known in run.plan.stages))
    if stage is not None and stage not in known:
        fix = did_you_mean(stage, known) or f"its stages are {', '.join(known)}"
        raise StoreError(f"{runs[0].expname} has no stage {stage!r}", where="--stage", fix=fix)


def _wait(run: Run, jobs: list[str]) -> None:
    while True:
        statuses = statuses_of(run)
        left = [name for name in jobs if not statuses[name].state.ended]
        if not left:
            return
        time.sleep(_PAUSE_SECONDS)
