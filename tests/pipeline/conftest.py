"""Fixtures of the launcher's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.pipeline.slurm_cluster import SlurmCluster, why_not


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """A real Slurm of two nodes, to which sbatch and its like talk while it is in use."""
    reason = why_not()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(f"no Slurm: {reason}")
    if reason:
        pytest.skip(f"no Slurm: {reason}")
    with SlurmCluster(nodes=2) as cluster, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(cluster.conf))
        yield cluster
