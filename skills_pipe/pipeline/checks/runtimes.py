"""What container runtimes cannot do: mounts, images and installations that one of them would not honour."""

from __future__ import annotations

from skills_pipe.pipeline.checks.finding import Finding, error
from skills_pipe.pipeline.checks.images import images_of, is_file
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime
from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.scripts.containers import has_read_only_mounts, is_mountable, keeps_image_as_it_is

_OF_REGISTRIES = (ContainerRuntime.DOCKER, ContainerRuntime.PODMAN)


def check_runtime(plan: Plan, cluster: ClusterConfig) -> list[Finding]:
    """All that the runtime of a cluster would not do as the plan says; nothing without containers."""
    if cluster.is_local or cluster.container_runtime is ContainerRuntime.NONE:
        return []
    return [*_mounts(plan, cluster), *_installations(plan, cluster), *_images(plan, cluster)]


def _mounts(plan: Plan, cluster: ClusterConfig) -> list[Finding]:
    where = f"mounts of cluster {cluster.name!r}"
    fix = "rename the folder, or mount one above it"
    paths = [path for mount in plan.mounts for path in (mount.source, mount.target)]
    findings = [
        error(f"{path!r} cannot be mounted: it has a comma or a colon", where=where, fix=fix)
        for path in dict.fromkeys(paths)
        if not is_mountable(path)
    ]
    if not has_read_only_mounts(cluster.container_runtime):
        findings += [
            error(
                f"{mount.target} cannot be mounted read-only: {cluster.container_runtime.value} has no such mounts",
                where=where,
                fix="leave :ro out, and protect the folder on the cluster itself",
            )
            for mount in plan.mounts
            if mount.read_only
        ]
    return findings


def _installations(plan: Plan, cluster: ClusterConfig) -> list[Finding]:
    commands = [command for job in plan.jobs for command in (job.command, *(member.command for member in job.beside))]
    if not keeps_image_as_it_is(cluster.container_runtime) or not any(c.installation_command for c in commands):
        return []
    what = f"nothing can be installed in a container of {cluster.container_runtime.value}: its image is read-only"
    return [error(what, where="--installation_command", fix="install it in the image")]


def _images(plan: Plan, cluster: ClusterConfig) -> list[Finding]:
    runtime = cluster.container_runtime
    findings = []
    for name, image in images_of(plan, cluster).items():
        where = f"containers.{name} of cluster {cluster.name!r}"
        if runtime in _OF_REGISTRIES and (is_file(image) or "://" in image):
            fix = "name it as `docker images` does: org/name:tag"
            findings.append(error(f"{runtime.value} cannot start {image!r}", where=where, fix=fix))
        if runtime is ContainerRuntime.CHARLIECLOUD and "://" in image:
            fix = "pull it with `ch-image pull org/name:tag` first, and name it as that does, or its folder"
            findings.append(error(f"charliecloud cannot start {image!r}", where=where, fix=fix))
    return findings
