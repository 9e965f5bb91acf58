"""The argv prefix by which each container runtime starts a command inside an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from skills_pipe.pipeline.cluster.config import ContainerRuntime
from skills_pipe.pipeline.plan import Mount


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """A command's container.

    Attributes:
        image: as the runtime names it: ``org/name:tag``, ``/images/x.sqsh``.
        mounts: folders of the cluster that the command sees.
        working_dir: where the command starts, inside.
        pass_env: variables whose outer value wins over the image's own.
    """

    image: str
    mounts: tuple[Mount, ...]
    working_dir: str
    pass_env: tuple[str, ...] = ()


def srun_flags(runtime: ContainerRuntime, spec: ContainerSpec) -> tuple[str, ...]:
    """Flags for srun itself; they come before the command."""
    return _SRUN_FLAGS[runtime](spec)


def _pyxis(spec: ContainerSpec) -> tuple[str, ...]:
    flags = [f"--container-image={spec.image}"]
    if spec.mounts:
        # pyxis takes one list; given twice, the last one wins.
        flags.append(f"--container-mounts={','.join(_mount(mount) for mount in spec.mounts)}")
    flags += [f"--container-workdir={spec.working_dir}", "--no-container-mount-home"]
    if spec.pass_env:
        flags.append(f"--container-env={','.join(spec.pass_env)}")
    return tuple(flags)


def _none(spec: ContainerSpec) -> tuple[str, ...]:
    return (f"--chdir={spec.working_dir}",)


def _mount(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}" + (":ro" if mount.read_only else "")


_SRUN_FLAGS: dict[ContainerRuntime, Callable[[ContainerSpec], tuple[str, ...]]] = {
    ContainerRuntime.PYXIS: _pyxis,
    ContainerRuntime.NONE: _none,
}
