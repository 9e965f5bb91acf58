"""A cluster configuration that is being made, and its text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from skills_pipe.pipeline.cluster.config import ContainerRuntime, ExecutorKind


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What is known of a configuration; None is not known yet.

    Attributes:
        name: of the file, without ``.yaml``.
        containers: ``name=image`` each.
        mounts: ``/on/cluster:/in/container[:ro]`` each.
        env: ``NAME=VALUE`` or ``NAME`` each.
        host, user, identity: how to reach a login node from here; without a host this is one.
    """

    name: str | None = None
    executor: ExecutorKind | None = None
    job_dir: str | None = None
    account: str | None = None
    partition: str | None = None
    cpu_partition: str | None = None
    qos: str | None = None
    default_timeout: str | None = None
    container_runtime: ContainerRuntime | None = None
    containers: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    host: str | None = None
    user: str | None = None
    identity: str | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """Fields without which there is no configuration."""
        needed = ["name", "executor"]
        if self.executor is not ExecutorKind.LOCAL:
            needed += ["job_dir", "partition", "container_runtime"]
        return tuple(name for name in needed if getattr(self, name) is None)

    def mapping(self) -> dict[str, Any]:
        """What the file says."""
        found: dict[str, Any] = {}
        for _, section in self._sections():
            found |= section
        return found

    def text(self) -> str:
        """The file, with a comment above each part."""
        import yaml

        parts = []
        for comment, section in self._sections():
            if section:
                body = yaml.safe_dump(section, sort_keys=False, width=1000, allow_unicode=True)
                parts.append(f"# {comment}\n{body}")
        return "\n".join(parts)

    def _sections(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        yield "Made by `ns setup`; docs/clusters.md describes every key.", _given(executor=self._executor)
        if self.host is None:
            yield "Folder for scripts and records of runs; all nodes see it.", _given(job_dir=self.job_dir)
        else:
            tunnel = _given(host=self.host, user=self.user, identity=self.identity, job_dir=self.job_dir)
            yield "How to reach a login node; job_dir is the folder there for records of runs.", {"ssh_tunnel": tunnel}
        slurm = _given(account=self.account, partition=self.partition, cpu_partition=self.cpu_partition, qos=self.qos)
        yield "Of the jobs, unless a command says otherwise.", slurm
        yield (
            "Time limit of each job; timeouts has those of single partitions.",
            _given(default_timeout=self.default_timeout),
        )
        runtime = self.container_runtime.value if self.container_runtime else None
        yield (
            "What starts the containers, and their images.",
            _given(container_runtime=runtime, containers=dict(item.partition("=")[::2] for item in self.containers)),
        )
        yield (
            "Folders that jobs see, as cluster:container, with :ro for a read-only one.",
            _given(mounts=list(self.mounts)),
        )
        yield (
            "Variables of the jobs: NAME=VALUE, or NAME for its value at submission. No secrets here.",
            _given(env_vars=list(self.env)),
        )

    @property
    def _executor(self) -> str | None:
        return self.executor.value if self.executor else None


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
