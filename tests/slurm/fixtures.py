"""The clusters that tests can ask for. A cluster starts when the first test needs it and runs until the last has ended.

``slurm``, ``slurm_accounting`` and ``slurm_forgetful`` are those that run already, with SLURM_CONF set to them for the
test; what an earlier test has left in the queue is cancelled first. ``slurm_clusters`` starts others. ``pyxis`` and
``charliecloud`` are the image that containers start from.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm.availability import (
    ACCOUNTING,
    CHARLIECLOUD,
    IMAGE,
    give_up,
    need,
    why_no_plugin,
    why_no_slurm,
    why_not,
)
from tests.slurm.cluster import SlurmCluster
from tests.slurm.image import ImageError, SmallImage, small_image, why_no_image
from tests.slurm.spec import ClusterSpec

STANDARD = ClusterSpec()
WITH_ACCOUNTING = ClusterSpec(accounting=True)
FORGETFUL = ClusterSpec(min_job_age=2, node_timeout=5, grace_time=4)


class Clusters:
    """The clusters that run, by what they are like."""

    def __init__(self) -> None:
        self._running: dict[ClusterSpec, SlurmCluster] = {}

    def get(self, spec: ClusterSpec) -> SlurmCluster:
        """The cluster of this kind, started if need be."""
        need(why_no_slurm())
        if spec.accounting:
            need(why_not(*ACCOUNTING))
        if spec not in self._running:
            self._running[spec] = SlurmCluster(spec).__enter__()
        return self._running[spec]

    def stop(self) -> None:
        """End them all."""
        while self._running:
            self._running.popitem()[1].__exit__()


@pytest.fixture(scope="session")
def slurm_clusters() -> Iterator[Clusters]:
    """For tests of a wider scope, and for clusters of other kinds; set SLURM_CONF yourself."""
    clusters = Clusters()
    yield clusters
    clusters.stop()


@pytest.fixture
def slurm(slurm_clusters: Clusters, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """Four nodes with 8 GPUs each, no accounting: sbatch and its like talk to it during the test."""
    return _use(slurm_clusters, STANDARD, monkeypatch)


@pytest.fixture
def slurm_accounting(slurm_clusters: Clusters, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """The same with slurmdbd: sacct answers, and accounts and QOS are enforced."""
    return _use(slurm_clusters, WITH_ACCOUNTING, monkeypatch)


@pytest.fixture
def slurm_forgetful(slurm_clusters: Clusters, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """The same as ``slurm``, but jobs that have ended are forgotten and dead nodes are noticed within seconds."""
    return _use(slurm_clusters, FORGETFUL, monkeypatch)


@pytest.fixture(scope="session")
def container_image() -> SmallImage:
    """The small image; the first build on a machine takes half a minute."""
    need(why_not(*IMAGE) or why_no_image())
    try:
        return small_image()
    except ImageError as error:
        give_up(f"no small image: {error}")


@pytest.fixture(scope="session")
def pyxis(container_image: SmallImage) -> SmallImage:
    """The small image, on a machine where srun has the flags of pyxis."""
    need(why_no_plugin())
    return container_image


@pytest.fixture(scope="session")
def charliecloud(container_image: SmallImage) -> SmallImage:
    """The small image, on a machine that has ch-run."""
    need(why_not(*CHARLIECLOUD))
    return container_image


def _use(clusters: Clusters, spec: ClusterSpec, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    cluster = clusters.get(spec)
    cluster.reset()
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    return cluster
