"""Where logs go of jobs that make nothing which they could lie beside."""

from __future__ import annotations

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.cluster.paths import PathMap


def log_folder(chosen: str | None, expname: str, cluster: ClusterConfig) -> str:
    """The folder that was chosen, else one among the records of runs, as jobs see it.

    Raises:
        OptionError: jobs do not see the records of runs.
    """
    if chosen:
        return cluster.absolute(chosen)
    folder = PathMap.of(cluster).to_container(f"{cluster.job_dir}/experiments/{expname}/logs")
    if folder is None:
        raise OptionError("--log_dir is missing", fix="name a mounted folder for the logs")
    return folder
