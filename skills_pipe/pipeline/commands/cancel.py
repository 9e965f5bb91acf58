"""``ns cancel``: stop what still runs or waits, a whole chain at once."""

from __future__ import annotations

from dataclasses import dataclass

from skills_pipe.pipeline.commands.record_options import RUN_HELP, RecordOptions
from skills_pipe.pipeline.console.command import Command as LauncherCommand
from skills_pipe.pipeline.options.declaration import argument


@dataclass(frozen=True, kw_only=True)
class CancelOptions(RecordOptions):
    """Cancel."""

    expname: str = argument(metavar="EXPNAME", help=RUN_HELP)


def run(options: CancelOptions, extras: tuple[str, ...]) -> int:
    """Stop the jobs of a run that have not ended."""
    from rich.console import Console

    from skills_pipe.pipeline.executors.registry import executor_of

    found = options.store.find(options.expname)
    stopped = executor_of(found).cancel(found)
    console = Console(highlight=False)
    console.print(f"{found}: " + (f"stopping {', '.join(stopped)}" if stopped else "nothing runs or waits"))
    return 0


COMMAND = LauncherCommand(options=CancelOptions, run=run)
