"""Images of containers: whether one is a file or comes from a registry, and what is wrong with its name."""

from __future__ import annotations

from skills_pipe.errors import did_you_mean
from skills_pipe.pipeline.checks.finding import Finding, error
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime
from skills_pipe.pipeline.plan import Plan

_FILE_ENDINGS = (".sqsh", ".squashfs", ".sif", ".simg")


def images_of(plan: Plan, cluster: ClusterConfig) -> dict[str, str]:
    """Name -> image of all containers of a plan that have one; the name is the image where it is named directly."""
    commands = [command for job in plan.jobs for command in (job.command, *(member.command for member in job.beside))]
    names = dict.fromkeys(command.container for command in commands)
    found = {name: cluster.containers.get(name) or (name if _is_image(name) else None) for name in names}
    return {name: image for name, image in found.items() if image is not None}


def is_file(image: str) -> bool:
    """Whether an image is a file or folder of the cluster, and not one of a registry."""
    return image.startswith(("/", "./"))


def check_images(plan: Plan, cluster: ClusterConfig) -> list[Finding]:
    """Containers without an image, and images whose name would be taken for something else."""
    if cluster.is_local or cluster.container_runtime is ContainerRuntime.NONE:
        return []
    where = f"containers of cluster {cluster.name!r}"
    images = images_of(plan, cluster)
    commands = [command for job in plan.jobs for command in (job.command, *(member.command for member in job.beside))]
    findings = []
    for name in dict.fromkeys(command.container for command in commands):
        if name not in images:
            has = ", ".join(sorted(cluster.containers)) or "none"
            fix = did_you_mean(name, cluster.containers) or f"add it there (it has {has})"
            findings.append(error(f"no image for {name!r}", where=where, fix=fix))
    for name, image in images.items():
        if image.endswith(_FILE_ENDINGS) and not is_file(image) and "://" not in image:
            what = f"image {image!r} of {name!r} would be looked for in a registry, for it has no / in front"
            findings.append(error(what, where=where, fix=f"write the path from the root: /images/{image}"))
    return findings


def _is_image(name: str) -> bool:
    """Anything with a slash or a colon is an image itself."""
    return bool(set("/:") & set(name))
