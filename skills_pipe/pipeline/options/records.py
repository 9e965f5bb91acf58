"""How the commands that look at runs are told which run is meant."""

from __future__ import annotations

from dataclasses import dataclass

from skills_pipe.pipeline.cluster.config import ClusterConfig, ClusterLike
from skills_pipe.pipeline.cluster.load import load_cluster
from skills_pipe.pipeline.options.declaration import option
from skills_pipe.pipeline.options.groups import read_cluster
from skills_pipe.pipeline.records.store import Run, RunStore, store_of
from skills_pipe.pipeline.reports.advice import Typed

RUN_HELP = "experiment, experiment/run-N, or the folder of a run"


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

    def load(self) -> ClusterConfig:
        """The cluster configuration."""
        return load_cluster(self.cluster, self.config_dir)

    @property
    def store(self) -> RunStore:
        """The records."""
        return store_of(self.load())

    def typed(self, run: Run) -> Typed:
        """How commands refer to a run that these options have found."""
        newest = next((other for other in self.store.runs(run.expname) if other.submission is not None), None)
        is_newest = newest is not None and newest.folder == run.folder
        return Typed(
            name=run.expname if is_newest else str(run),
            cluster=self.cluster if isinstance(self.cluster, str) else None,
        )
