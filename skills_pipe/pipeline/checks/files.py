"""Whether what the jobs read is on the cluster, and whether they can write where they want to."""

from __future__ import annotations

from collections.abc import Iterator

from skills_pipe.errors import ClusterConfigError
from skills_pipe.pipeline.checks.finding import Finding, error, warning
from skills_pipe.pipeline.checks.images import images_of
from skills_pipe.pipeline.checks.questions import Answers
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime
from skills_pipe.pipeline.cluster.paths import RUN_DIR, PathMap, is_below
from skills_pipe.pipeline.plan import Plan


def paths_to_look_at(plan: Plan, cluster: ClusterConfig) -> tuple[str, ...]:
    """Everything that :func:`check_files` needs to know about, as the cluster names it."""
    home = _hf_home(cluster)
    found = [cluster.job_dir, *_mount_sources(plan, cluster), *_image_files(plan, cluster)]
    found += [*_written(plan, cluster), *([home[1]] if home else [])]
    return tuple(dict.fromkeys(found))


def check_files(plan: Plan, cluster: ClusterConfig, answers: Answers) -> list[Finding]:
    """Mounts, images and HF_HOME that are not there, and folders that cannot be written to."""
    findings = [
        *_check_mounts(plan, cluster, answers),
        *_check_images(plan, cluster, answers),
        *_check_written(plan, cluster, answers),
        *_check_hf_home(cluster, answers),
    ]
    return list(dict.fromkeys(findings))


def _check_mounts(plan: Plan, cluster: ClusterConfig, answers: Answers) -> Iterator[Finding]:
    for source in _mount_sources(plan, cluster):
        if not answers.looks[source].exists:
            own = any(mount.source == source for mount in cluster.mounts)
            where = f"mounts of cluster {cluster.name!r}" if own else "--mount_paths"
            fix = f"make it there (mkdir -p {source}), or correct the path"
            yield error(f"{source} is mounted, and does not exist on the cluster", where=where, fix=fix)


def _check_images(plan: Plan, cluster: ClusterConfig, answers: Answers) -> Iterator[Finding]:
    where = f"containers of cluster {cluster.name!r}"
    for image in _image_files(plan, cluster):
        look = answers.looks[image]
        if not look.exists:
            fix = "correct the path, or build the image (containers/ has recipes)"
            yield error(f"there is no image {image} on the cluster", where=where, fix=fix)
        elif not look.readable:
            yield error(f"the image {image} cannot be read", where=where, fix="ask its owner for the permission")


def _check_written(plan: Plan, cluster: ClusterConfig, answers: Answers) -> Iterator[Finding]:
    for path in (cluster.job_dir, *_written(plan, cluster)):
        look = answers.looks[path]
        where = f"job_dir of cluster {cluster.name!r}" if path == cluster.job_dir else None
        if not look.writable:
            what = f"you may not write to {look.nearest}" + (f", where {path} is to be made" * (path != look.nearest))
            yield error(what, where=where, fix="choose another folder, or ask for the permission")
        elif not look.exists and look.nearest == "/":
            # Nobody keeps data right below the root: a file system that is not mounted looks just so.
            what = f"{path} is to be made, and not even {'/'.join(path.split('/')[:2])} exists on the cluster"
            yield warning(what, where=where, fix="correct the path if it is misspelt")


def _check_hf_home(cluster: ClusterConfig, answers: Answers) -> Iterator[Finding]:
    home = _hf_home(cluster)
    if home is None:
        return
    inside, path = home
    look = answers.looks[path]
    where = f"env_vars of cluster {cluster.name!r}"
    if not look.exists:
        on = f"{path} on the cluster" if path != inside else path
        fix = f"make it there: mkdir -p {path}"
        # The first job makes it, if it may; in a container the folder above is the mount.
        tell = warning if look.writable else error
        yield tell(f"HF_HOME does not exist yet: {on}", where=where, fix=fix)


def _mount_sources(plan: Plan, cluster: ClusterConfig) -> tuple[str, ...]:
    if cluster.is_local or cluster.container_runtime is ContainerRuntime.NONE:
        return ()
    return tuple(dict.fromkeys(mount.source for mount in plan.mounts))


def _image_files(plan: Plan, cluster: ClusterConfig) -> tuple[str, ...]:
    if cluster.is_local or cluster.container_runtime is ContainerRuntime.NONE:
        return ()
    return tuple(dict.fromkeys(image for image in images_of(plan, cluster).values() if image.startswith("/")))


def _written(plan: Plan, cluster: ClusterConfig) -> tuple[str, ...]:
    """Outputs and folders of logs, where mounts lead to them."""
    paths = PathMap.of(cluster)
    inside = [stage.output for stage in plan.stages if stage.output] + [job.log_dir for job in plan.jobs]
    outside = [paths.to_cluster(path) for path in inside if path.startswith("/") and not is_below(path, RUN_DIR)]
    return tuple(dict.fromkeys(path for path in outside if path is not None))


def _hf_home(cluster: ClusterConfig) -> tuple[str, str] | None:
    """HF_HOME as jobs see it, and where that is on the cluster."""
    try:
        inside = cluster.environment().get("HF_HOME")
    except ClusterConfigError:
        return None  # told by the checks of the configuration
    outside = PathMap.of(cluster).to_cluster(inside) if inside else None
    return (inside, outside) if inside and outside else None
