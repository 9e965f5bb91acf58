"""Variables for jobs: which may stand in a script, and which must not."""

from __future__ import annotations

from collections.abc import Mapping

from skills_pipe.pipeline.cluster.config import ClusterConfig


def public_environment(cluster: ClusterConfig) -> dict[str, str]:
    """Variables whose value stands in the cluster configuration and whose name is not that of a secret."""
    return {v.name: v.value for v in cluster.env if v.value is not None and not v.secret}


def private_environment(cluster: ClusterConfig, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """All other variables for jobs, with their values; looked up when a run is submitted."""
    public = public_environment(cluster)
    return {name: value for name, value in cluster.environment(environ).items() if name not in public}
