"""``ns status``: what runs, how far it is, what has ended and how, and what somebody has to see to."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from skills_pipe.errors import OptionError, StoreError, did_you_mean
from skills_pipe.pipeline.console.command import Command as LauncherCommand
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.options.declaration import argument, option, switch
from skills_pipe.pipeline.options.records import RUN_HELP, RecordOptions
from skills_pipe.pipeline.records.states import JobStatus
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.reports.advice import advice
from skills_pipe.pipeline.reports.as_json import run_as_json
from skills_pipe.pipeline.reports.report import RunReport, report_of

_PAUSE_SECONDS = {"local": 1.0}
_PAUSE_OF_SCHEDULERS = 10.0
"""Between two looks: a controller of Slurm has many who ask."""


@dataclass(frozen=True, kw_only=True)
class StatusOptions(RecordOptions):
    """Status."""

    expname: str | None = argument(None, metavar="EXPNAME", help=f"{RUN_HELP}; none lists all")
    stage: str | None = argument(None, metavar="STAGE", help="show this stage alone, training with its loss so far")
    watch: bool = switch(on=("--watch", "-w"), help="go on showing it until all jobs have ended")
    json: bool = switch(help="print it as JSON, for programs")
    last: int = option(20, help="how many runs to list")
    all: bool = switch(help="list all runs")


def run(options: StatusOptions, extras: tuple[str, ...]) -> int:
    """Show one run, or list the newest ones; with ``--watch`` 1 when the run did not end well."""
    if options.expname is None:
        if options.watch:
            raise OptionError("--watch needs the name of an experiment", fix="write `ns status EXPNAME --watch`")
        return _list(options)
    found = options.store.find(options.expname)
    _check_stage(found, options.stage)
    if options.watch:
        return _watch(found, options)
    report = report_of(found, statuses_of(found), now=time.time())
    if options.json:
        _print_json(run_as_json(report, advice(report, options.typed(found))))
    else:
        _show(found, report, options)
    return 0


COMMAND = LauncherCommand(options=StatusOptions, run=run)


def _list(options: StatusOptions) -> int:
    from skills_pipe.pipeline.display.runs import show_runs

    runs = options.store.all()
    shown = runs if options.all else runs[: max(0, options.last)]
    now = time.time()
    reports = [report_of(run, statuses_of(run), now=now) for run in shown]
    if options.json:
        _print_json([run_as_json(report, advice(report, options.typed(Run(report.folder)))) for report in reports])
    else:
        show_runs(reports, hidden=len(runs) - len(shown))
    return 0


def _show(run: Run, report: RunReport, options: StatusOptions) -> None:
    from skills_pipe.pipeline.display.status import show_advice, show_curve, show_status
    from skills_pipe.pipeline.reports.loss import loss_of

    show_status(report, only=options.stage)
    if options.stage is not None:
        curves = loss_of(run, options.stage)
        if curves is not None:
            show_curve(curves.loss, curves.validation)
    show_advice(advice(report, options.typed(run)))


def _watch(run: Run, options: StatusOptions) -> int:
    """Look again and again; one who stops watching stops nothing else."""
    from skills_pipe.pipeline.display.board import LiveBoard
    from skills_pipe.pipeline.display.status import show_advice

    record = run.submission
    pause = _PAUSE_SECONDS.get(record.executor, _PAUSE_OF_SCHEDULERS) if record else 0.0
    statuses: dict[str, JobStatus] = {}
    silent = False
    try:
        with LiveBoard() as board:
            while True:
                try:
                    statuses = statuses_of(run)
                    silent = False
                except StoreError as error:
                    # A controller that restarts is no reason to end in the middle of a night.
                    if not silent:
                        board.say(f"{error.what}; looking on")
                    silent = True
                board.update(run, statuses)
                if not silent and all(status.state.ended for status in statuses.values()):
                    break
                time.sleep(pause)
    except KeyboardInterrupt:
        print(f"\n{run} goes on; {options.typed(run).command('cancel')} would stop it")
        return 130
    report = report_of(run, statuses, now=time.time())
    show_advice(advice(report, options.typed(run)))
    return 0 if report.good else 1


def _check_stage(run: Run, stage: str | None) -> None:
    known = [known.name for known in run.plan.stages]
    if stage is not None and stage not in known:
        raise StoreError(
            f"{run} has no stage {stage!r}",
            where=str(run.folder),
            fix=did_you_mean(stage, known) or f"its stages are {', '.join(known)}",
        )


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
