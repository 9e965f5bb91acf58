"""What a cluster of the tests is like."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """A cluster, before it runs.

    Attributes:
        nodes: how many; they are called node1, node2, ...
        gpus: of each node. They are device files that behave as /dev/null.
        accounting: with slurmdbd, so that sacct answers, and with limits that are enforced.
        min_job_age: seconds after which the controller forgets a job that has ended.
        node_timeout: seconds without an answer after which a node is down; the controller takes three times as long.
        grace_time: seconds between the SIGTERM and the SIGKILL of a preempted job of the partition ``low``.
        containers: with the plugin that gives srun the flags of pyxis.
    """

    nodes: int = 4
    gpus: int = 8
    accounting: bool = False
    min_job_age: int = 600
    node_timeout: int = 20
    grace_time: int = 0
    containers: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Of the nodes."""
        return tuple(f"node{number}" for number in range(1, self.nodes + 1))
