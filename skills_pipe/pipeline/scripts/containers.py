"""How each container runtime starts a command inside an image: flags for srun, and words before the command.

A runtime gets the variables of the job by their names: no value stands on a command line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from skills_pipe.errors import PlanError
from skills_pipe.pipeline.cluster.config import ContainerRuntime
from skills_pipe.pipeline.plan import Mount


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """A command's container.

    Attributes:
        image: as the configuration names it: ``org/name:tag``, ``/images/x.sqsh``.
        mounts: folders of the cluster that the command sees.
        working_dir: where the command starts, inside; None for what the image says.
        pass_env: variables whose outer value wins over the image's own.
        gpus: whether it uses GPUs.
        writable: the command changes the file system of the image; the changes are lost when it ends.
    """

    image: str
    mounts: tuple[Mount, ...] = ()
    working_dir: str | None = None
    pass_env: tuple[str, ...] = ()
    gpus: bool = False
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Contained:
    """A command in its container: ``srun``, ``srun_flags``, then ``prefix``, then the command."""

    srun_flags: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()


def contain(runtime: ContainerRuntime, spec: ContainerSpec) -> Contained:
    """What starts a command in a container.

    Raises:
        PlanError: a path cannot be written in the words of the runtime.
    """
    for path in (path for mount in spec.mounts for path in (mount.source, mount.target)):
        if not is_mountable(path):
            raise PlanError(f"{path!r} cannot be mounted: it has a comma, a colon or a line break", fix="rename it")
    return _RUNTIMES[runtime](spec)


def shares_root(runtime: ContainerRuntime) -> bool:
    """Whether the tasks of a node see what one of them installs; otherwise each has a container of its own."""
    return runtime in (ContainerRuntime.PYXIS, ContainerRuntime.NONE)


def has_read_only_mounts(runtime: ContainerRuntime) -> bool:
    """Whether the runtime can keep a mount from being written."""
    return runtime is not ContainerRuntime.CHARLIECLOUD


def keeps_image_as_it_is(runtime: ContainerRuntime) -> bool:
    """Whether a command can change nothing of its image, not even for itself."""
    return runtime is ContainerRuntime.CHARLIECLOUD


def is_mountable(path: str) -> bool:
    """Whether a path can be told from the signs that stand around it in the words of runtimes."""
    return not any(sign in path for sign in ",:\n")


def _pyxis(spec: ContainerSpec) -> Contained:
    flags = [f"--container-image={spec.image}"]
    if spec.mounts:
        # pyxis takes one list; given twice, the last one wins.
        flags.append(f"--container-mounts={','.join(_mount(mount) for mount in spec.mounts)}")
    if spec.working_dir:
        flags.append(f"--container-workdir={spec.working_dir}")
    flags.append("--no-container-mount-home")
    if spec.writable:
        flags.append("--container-writable")
    if spec.pass_env:
        flags.append(f"--container-env={','.join(spec.pass_env)}")
    return Contained(srun_flags=tuple(flags))


def _apptainer(spec: ContainerSpec) -> Contained:
    # A name of a registry would be taken for a file beside the script.
    image = spec.image if "://" in spec.image or spec.image.startswith("/") else f"docker://{spec.image}"
    words = ["apptainer", "exec", "--no-mount=home,cwd"]
    words += [word for mount in spec.mounts for word in ("--bind", _mount(mount))]
    words += ["--pwd", spec.working_dir] if spec.working_dir else []
    words += ["--nv"] if spec.gpus else []
    words += ["--writable-tmpfs"] if spec.writable else []
    # Variables of the caller come along; these win over what the image sets.
    names = " ".join(spec.pass_env)
    script = f'for name in {names}; do export "APPTAINERENV_$name=${{!name-}}"; done; exec "$@"'
    wrapper = ("bash", "-c", script, "apptainer") if spec.pass_env else ()
    return Contained(prefix=(*wrapper, *words, image))


def _charliecloud(spec: ContainerSpec) -> Contained:
    # Variables come along, and so would the PATH of the node, which need not suit the image.
    script = (
        'path=$(sed -n "s/^PATH=//p" "$0/ch/environment" 2> /dev/null); '
        f'exec ch-run --set-env=PATH="${{path:-{_IMAGE_PATH}}}" "$@"'
    )
    words = ["--private-tmp", "--set-env=HOME=/root"]
    words += [f"--bind={mount.source}:{mount.target}" for mount in spec.mounts]
    words += [f"--cd={spec.working_dir}"] if spec.working_dir else []
    return Contained(prefix=("bash", "-c", script, spec.image, *words, spec.image, "--"))


def _docker(spec: ContainerSpec) -> Contained:
    # The daemon counts the GPUs of the node, and shows those that it gives as 0, 1, ...
    gpus = 'set -- --gpus "\\"device=${SLURM_STEP_GPUS:-${SLURM_JOB_GPUS:-all}}\\"" "$@"; '
    script = _PASS_ALL + (gpus if spec.gpus else "") + 'exec docker run --user "$(id -u):$(id -g)" "$@"'
    return Contained(prefix=("bash", "-c", script, "docker", *_daemon_words(spec)))


def _podman(spec: ContainerSpec) -> Contained:
    gpus = (
        'for gpu in $(echo "${SLURM_STEP_GPUS:-${SLURM_JOB_GPUS:-all}}" | tr , " "); do '
        'set -- --device "nvidia.com/gpu=$gpu" "$@"; done; '
    )
    script = _PASS_ALL + (gpus if spec.gpus else "") + 'exec podman run --userns=keep-id "$@"'
    return Contained(prefix=("bash", "-c", script, "podman", *_daemon_words(spec)))


def _daemon_words(spec: ContainerSpec) -> tuple[str, ...]:
    words = ["--rm", "--init", "--network=host", "--ipc=host"]
    words += [word for mount in spec.mounts for word in ("--volume", _mount(mount))]
    words += ["--workdir", spec.working_dir] if spec.working_dir else []
    words += [] if spec.writable else ["--read-only", "--tmpfs=/tmp"]
    return (*words, spec.image)


def _none(spec: ContainerSpec) -> Contained:
    return Contained(srun_flags=(f"--chdir={spec.working_dir}",) if spec.working_dir else ())


def _mount(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}" + (":ro" if mount.read_only else "")


_IMAGE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_PASS_ALL = (
    "for name in $(compgen -e); do "
    'case "$name" in PATH|HOME|USER|SHELL|PWD|OLDPWD|SHLVL|HOSTNAME|TMPDIR|LD_*|CUDA_VISIBLE_DEVICES) ;; '
    '*) set -- --env "$name" "$@" ;; esac; done; '
)
"""Names every variable of the job, but for those that describe the machine outside."""

_RUNTIMES: dict[ContainerRuntime, Callable[[ContainerSpec], Contained]] = {
    ContainerRuntime.PYXIS: _pyxis,
    ContainerRuntime.APPTAINER: _apptainer,
    ContainerRuntime.CHARLIECLOUD: _charliecloud,
    ContainerRuntime.DOCKER: _docker,
    ContainerRuntime.PODMAN: _podman,
    ContainerRuntime.NONE: _none,
}
