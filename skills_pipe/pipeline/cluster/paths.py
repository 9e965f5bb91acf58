"""Paths as jobs see them, and as the cluster does: mounts lead from one to the other."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from skills_pipe.errors import PlanError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime
from skills_pipe.pipeline.plan import Mount

RUN_DIR = "/nemo_run"
"""The run folder as jobs in containers see it."""


@dataclass(frozen=True, kw_only=True)
class PathMap:
    """Both views of the file system.

    A mount covers a path only at whole components: ``/data`` covers ``/data/x`` and not ``/data2/x``. Of several
    mounts the longest one counts. Without containers both views are the same.

    Attributes:
        mounts: folders of the cluster in containers.
        containers: whether jobs run in containers at all.
    """

    mounts: tuple[Mount, ...] = ()
    containers: bool = True

    @classmethod
    def of(cls, cluster: ClusterConfig, *, run_dir: str | None = None) -> PathMap:
        """The map of a cluster; with ``run_dir`` it covers the folder of a run too."""
        containers = cluster.container_runtime is not ContainerRuntime.NONE
        own = (Mount(source=run_dir, target=RUN_DIR),) if run_dir else ()
        return cls(mounts=cluster.mounts + own, containers=containers)

    def to_cluster(self, path: str) -> str | None:
        """Where a job's path lies on the cluster; None when no mount covers it."""
        if not self.containers:
            return path
        mount = _longest(self.mounts, path, lambda mount: mount.target)
        return _move(path, mount.target, mount.source) if mount else None

    def to_container(self, path: str) -> str | None:
        """How jobs see a path of the cluster; None when no mount covers it."""
        if not self.containers:
            return path
        mount = _longest(self.mounts, path, lambda mount: mount.source)
        return _move(path, mount.source, mount.target) if mount else None

    def is_writable(self, path: str) -> bool:
        """Whether jobs may write below a path of theirs."""
        mount = _longest(self.mounts, path, lambda mount: mount.target)
        return not self.containers or (mount is not None and not mount.read_only)


def to_cluster(path: str, mounts: Iterable[Mount]) -> str:
    """Where a path of jobs in containers lies on the cluster.

    Raises:
        PlanError: no mount covers it.
    """
    found = PathMap(mounts=tuple(mounts)).to_cluster(path)
    if found is None:
        raise PlanError(f"{path} is on no mount", fix="use a mounted folder, or add --mount_paths")
    return found


def is_below(path: str, folder: str) -> bool:
    """Whether ``path`` is ``folder`` or lies in it, at whole components."""
    path, folder = posixpath.normpath(path), posixpath.normpath(folder)
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _longest(mounts: Iterable[Mount], path: str, side: Callable[[Mount], str]) -> Mount | None:
    covering = [mount for mount in mounts if is_below(path, side(mount))]
    return max(covering, key=lambda mount: len(posixpath.normpath(side(mount))), default=None)


def _move(path: str, old: str, new: str) -> str:
    rest = posixpath.relpath(posixpath.normpath(path), posixpath.normpath(old))
    return posixpath.normpath(posixpath.join(new, rest))
