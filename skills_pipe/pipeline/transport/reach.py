"""Which transport leads from here to a cluster."""

from __future__ import annotations

from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.transport.base import Transport
from skills_pipe.pipeline.transport.here import Here


def is_behind_ssh(cluster: ClusterConfig) -> bool:
    """Whether only ssh leads from here to the cluster's files and its Slurm; nemo-run has tunnels of its own."""
    return cluster.executor is ExecutorKind.SLURM and cluster.ssh_tunnel is not None


def transport_of(cluster: ClusterConfig) -> Transport:
    """How programs run on a login node of ``cluster``: here, or through its ``ssh_tunnel``."""
    if cluster.ssh_tunnel is None or not is_behind_ssh(cluster):
        return Here()
    # Imported here: few clusters are behind ssh.
    from skills_pipe.pipeline.transport.ssh import Ssh

    return Ssh(cluster.ssh_tunnel, where=f"ssh_tunnel of cluster {cluster.name!r}")
