"""From the name of a cluster to its configuration.

load_cluster("my-slurm")   cluster_configs/my-slurm.yaml -> ClusterConfig
load_cluster(None)         this machine, without containers
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from skills_pipe.pipeline.cluster.config import ENV_CONFIG, ClusterConfig, ClusterLike, default_job_dir
from skills_pipe.pipeline.cluster.file import find_file, read_file, read_mapping


def load_cluster(cluster: ClusterLike, config_dir: str | None = None) -> ClusterConfig:
    """The cluster configuration of this name.

    Args:
        cluster: name of a file without ``.yaml``, a path ending in ``.yaml``, or the contents as a mapping. None means
            the file that ``NEMO_SKILLS_CONFIG`` names, else this machine.
        config_dir: the only folder to look in; without it the folder that ``NEMO_SKILLS_CONFIG_DIR`` names, else
            ``cluster_configs`` in the current folder.

    Raises:
        ClusterConfigError: there is no such file, or some keys or values in it are wrong; all of them are told.
    """
    if isinstance(cluster, ClusterConfig):
        return cluster
    if isinstance(cluster, Mapping):
        return read_mapping(cluster, name="(given as a mapping)", where="the cluster argument")
    if cluster is None:
        path = os.environ.get(ENV_CONFIG)
        return read_file(Path(path)) if path else local_cluster()
    found = find_file(cluster, config_dir)
    return read_file(found) if found else local_cluster()


def local_cluster() -> ClusterConfig:
    """This machine, without containers."""
    return ClusterConfig(name="local", job_dir=default_job_dir(), working_dir=str(Path.cwd()))
