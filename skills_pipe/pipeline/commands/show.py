"""``ns show``: what a run was made of: its command, its code, plan, scripts, configuration and lineage."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from skills_pipe.errors import OptionError, StoreError, did_you_mean
from skills_pipe.pipeline.commands.sft import ENTRY as TRAINING
from skills_pipe.pipeline.console.command import Command as LauncherCommand
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.options.declaration import argument, option, switch
from skills_pipe.pipeline.options.records import RUN_HELP, RecordOptions
from skills_pipe.pipeline.plan import Job
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.reports.advice import advice
from skills_pipe.pipeline.reports.as_json import run_as_json
from skills_pipe.pipeline.reports.making import RunMaking, differences, making_of
from skills_pipe.pipeline.reports.report import report_of


@dataclass(frozen=True, kw_only=True)
class ShowOptions(RecordOptions):
    """Show."""

    expname: str = argument(metavar="EXPNAME", help=RUN_HELP)
    stage: str | None = argument(None, metavar="STAGE", help="show this stage alone")
    scripts: bool = switch(help="print the scripts of the jobs as they were submitted")
    config: bool = switch(help="print the whole configuration of the training, defaults included")
    json: bool = switch(help="print all of it as JSON, for programs")
    compare: str | None = option(None, metavar="EXPNAME", help="tell what differs in another run")


def run(options: ShowOptions, extras: tuple[str, ...]) -> int:
    """Show one run."""
    from skills_pipe.pipeline.display.making import show_differences, show_making

    _check_one(options)
    found = options.store.find(options.expname)
    _check_stage(found, options.stage)
    if options.scripts:
        _print_scripts(found, options.stage)
        return 0
    if options.config:
        _print_config(found, options.stage)
        return 0
    making = _making(found, options)
    if options.compare is not None:
        other = _making(options.store.find(options.compare), options)
        show_differences(differences(making, other))
    elif options.json:
        print(json.dumps(_as_json(found, making, options), indent=2, ensure_ascii=False))
    else:
        show_making(making, only=options.stage)
    return 0


COMMAND = LauncherCommand(options=ShowOptions, run=run)


def _check_one(options: ShowOptions) -> None:
    given = [f"--{name}" for name in ("scripts", "config", "json", "compare") if getattr(options, name)]
    if len(given) > 1:
        raise OptionError(f"{' and '.join(given)} exclude each other", fix="keep one")


def _check_stage(run: Run, stage: str | None) -> None:
    known = [known.name for known in run.plan.stages]
    if stage is not None and stage not in known:
        fix = did_you_mean(stage, known) or f"its stages are {', '.join(known)}"
        raise StoreError(f"{run} has no stage {stage!r}", where=str(run.folder), fix=fix)


def _making(run: Run, options: ShowOptions) -> RunMaking:
    return making_of(run, report_of(run, statuses_of(run), now=time.time()), options.load())


def _jobs(run: Run, stage: str | None) -> list[Job]:
    return [job for job in run.plan.jobs if stage in (None, job.stage)]


def _print_scripts(run: Run, stage: str | None) -> None:
    paths = [path for job in _jobs(run, stage) if (path := run.script_path(job.name)).exists()]
    if not paths:
        raise StoreError(f"{run} has no scripts: nothing of it had to run", where=str(run.folder))
    for path in paths:
        sys.stdout.write(f"==> {run.at}/scripts/{path.name} <==\n{path.read_text()}\n")


def _print_config(run: Run, stage: str | None) -> None:
    trains = [job for job in _jobs(run, stage) if TRAINING in job.command.argv]
    if not trains:
        raise StoreError(f"{run} trains nothing", where="--config", fix="`ns show` alone tells what its stages do")
    # Imported here: it loads OmegaConf, which nothing else needs that only looks at records.
    from skills_pipe.training.config import load_config
    from skills_pipe.training.config.dump import to_yaml

    argv = trains[0].command.argv
    words = argv[argv.index(TRAINING) + 1 :]
    files = [word for word in words if word.startswith("--")]
    if files:
        raise OptionError(f"the configuration is made in the job, of {' '.join(files)}", where="--config")
    sys.stdout.write(to_yaml(load_config(None, words)))


def _as_json(run: Run, making: RunMaking, options: ShowOptions) -> dict[str, Any]:
    report = making.report
    return {
        **run_as_json(report, advice(report, options.typed(run))),
        "command_line": asdict(making.command) if making.command else None,
        "code": making.code,
        "plan": run.plan.to_json(),
        "identities": {
            stage.report.name: stage.identity.to_json() if stage.identity else None for stage in making.stages
        },
    }
