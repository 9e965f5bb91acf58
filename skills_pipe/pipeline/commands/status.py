"""``ns status``: what runs, what has ended and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from skills_pipe.pipeline.cluster.config import ClusterLike
from skills_pipe.pipeline.cluster.load import load_cluster
from skills_pipe.pipeline.console.command import Command as LauncherCommand
from skills_pipe.pipeline.options.declaration import argument, option
from skills_pipe.pipeline.options.groups import read_cluster
from skills_pipe.pipeline.records.store import RunStore


@dataclass(frozen=True, kw_only=True)
class RecordOptions:
    """Where the records of runs are."""

    cluster: ClusterLike = option(
        None,
        parse=read_cluster,
        metavar="NAME",
        help="cluster configuration that the run was submitted with; without it this machine",
    )
    config_dir: str | None = option(None, metavar="DIR", help="folder of cluster configurations")

    @property
    def store(self) -> RunStore:
        """The records."""
        return RunStore(Path(load_cluster(self.cluster, self.config_dir).job_dir))


@dataclass(frozen=True, kw_only=True)
class StatusOptions(RecordOptions):
    """Status."""

    expname: str | None = argument(
        None, metavar="EXPNAME", help="experiment, experiment/run-N, or the folder of a run; none lists all"
    )
    last: int = option(20, help="how many runs to list")


def run(options: StatusOptions, extras: tuple[str, ...]) -> int:
    """Show one run, or the newest ones."""
    from skills_pipe.pipeline import display
    from skills_pipe.pipeline.executors.registry import statuses_of

    store = options.store
    if options.expname is not None:
        found = store.find(options.expname)
        display.show_status(found, statuses_of(found))
        return 0
    runs = store.all()
    display.show_runs([(run, statuses_of(run)) for run in runs[: options.last]], hidden=len(runs) - options.last)
    return 0


COMMAND = LauncherCommand(options=StatusOptions, run=run)
