"""Everything that can be checked before a job waits in a queue; all findings at once."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

from skills_pipe.errors import ClusterConfigError, did_you_mean
from skills_pipe.pipeline.checks.finding import Finding, error, warning
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, ExecutorKind
from skills_pipe.pipeline.cluster.paths import RUN_DIR, PathMap, is_below
from skills_pipe.pipeline.decisions.fingerprint import HUB_DATASET, is_hub_id
from skills_pipe.pipeline.plan import Launch, Plan


def check_cluster(plan: Plan, cluster: ClusterConfig) -> list[Finding]:
    """Findings on the configuration of the cluster: variables, images, keys that have no effect."""
    where = f"cluster {cluster.name!r}"
    findings = []
    environment: Mapping[str, str] = {}
    try:
        environment = cluster.environment()
    except ClusterConfigError as problem:
        findings.append(error(problem.what, where=problem.where, fix=problem.fix))
    if cluster.dependency_type not in (None, "afterok"):
        findings.append(
            warning(f"dependency_type {cluster.dependency_type} has no effect: each edge has its own", where=where)
        )
    if cluster.is_local and cluster.containers:
        findings.append(warning("containers have no effect on this machine: jobs are plain processes", where=where))
    if cluster.is_local and any(mount.source != mount.target for mount in cluster.mounts):
        findings.append(warning("mounts have no effect on this machine: paths are taken as they are", where=where))
    if cluster.executor is ExecutorKind.SLURM and not cluster.account:
        findings.append(warning("no account is set: the jobs go to your default account", where=where))
    if cluster.container_runtime is not ContainerRuntime.NONE:
        findings += _check_hf_home(cluster, environment)
    return findings


def check_paths(plan: Plan, cluster: ClusterConfig) -> list[Finding]:
    """Findings on where the jobs read and write: all must be absolute and mounted, and outputs writable."""
    paths = PathMap.of(cluster)
    findings = []
    outputs = {stage.output for stage in plan.stages if stage.output} | {job.log_dir for job in plan.jobs}
    # On this machine jobs start in the current folder, and other names than ids are paths from there.
    inputs = {
        path
        for stage in plan.stages
        for path in stage.inputs
        if path.startswith("/") or not (cluster.is_local or is_hub_id(path))
    }
    everything = [path for path in sorted(outputs | inputs) if not is_below(path, RUN_DIR)]
    for path in (path for path in everything if not path.startswith("/")):
        findings.append(error(f"{path} is not an absolute path", fix="write it from the root, as jobs see it"))
    absolute = [path for path in everything if path.startswith("/")]
    for path in _with_siblings_as_one(path for path in absolute if paths.to_cluster(path) is None):
        findings.append(_on_no_mount(path, cluster))
    unwritable = (path for path in absolute if path in outputs and paths.to_cluster(path) is not None)
    for path in _with_siblings_as_one(path for path in unwritable if not paths.is_writable(path)):
        findings.append(error(f"{path} is on a mount that is read-only", fix="write somewhere else"))
    return findings


def check_overlaps(plan: Plan, cluster: ClusterConfig) -> Iterator[Finding]:
    """Findings on outputs that are what the run reads, or hold it: a restart would set that aside with them."""
    paths = PathMap.of(cluster)
    inputs = {path: paths.to_cluster(path) for stage in plan.stages for path in stage.inputs if path.startswith("/")}
    outputs = {stage.output: paths.to_cluster(stage.output) for stage in plan.stages if stage.output}
    for path, read in inputs.items():
        for output, made in outputs.items():
            if read is not None and made is not None and (is_below(read, made) or fnmatch(made, read)):
                what = f"{output} would be written, and {'it' if path == output else path} is read"
                yield error(what, fix="choose another output", path=output)
                break


def _with_siblings_as_one(paths: Iterable[str]) -> list[str]:
    """Paths, those of one folder as that folder: it is what was named."""
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(posixpath.dirname(posixpath.normpath(path)), []).append(path)
    return [
        folder if len(below) > 1 and folder != "/" else path for folder, below in found.items() for path in below[:1]
    ]


def _on_no_mount(path: str, cluster: ClusterConfig) -> Finding:
    targets = [mount.target for mount in cluster.mounts]
    what = f"{path} is on no mount of cluster {cluster.name!r} (it has {', '.join(targets) or 'none'})"
    seen = PathMap.of(cluster).to_container(path)
    if seen is not None:
        return error(what, fix=f"write it as jobs see it: {seen}")
    start = "/" + path.split("/")[1]
    near = did_you_mean(start, [target for target in targets if target.count("/") == 1])
    return error(what, fix=near or "use a mounted folder, or add --mount_paths")


def check_hub_names(plan: Plan, cluster: ClusterConfig) -> list[Finding]:
    """Findings on inputs that would be looked for on the Hugging Face hub, and look like a misspelt path."""
    if not cluster.is_local:
        return []
    inputs = (path for stage in plan.stages for path in stage.inputs if not path.startswith("/"))
    names = dict.fromkeys(path.removeprefix(HUB_DATASET) for path in inputs)
    return [
        warning(f"there is no {name} here: it will be looked for on the Hugging Face hub", fix=f"./{name} is a path")
        for name in names
        if not Path(name).exists() and Path(name).parent.is_dir()
    ]


def check_machine(plan: Plan, *, gpus: int) -> list[Finding]:
    """Findings on what a run on this machine asks for, where it has ``gpus`` GPUs."""
    findings = []
    flag = "--server_gpus" if plan.command == "eval" else "--num_gpus"
    most = max((job.resources.num_gpus for job in plan.jobs), default=0)
    if any(job.resources.num_nodes > 1 for job in plan.jobs):
        findings.append(error("this machine is one node", where="--num_nodes", fix="use --cluster for several"))
    if most > gpus > 0:
        fix = f"ask for {gpus} at most"
        findings.append(error(f"{most} GPUs are asked for, and this machine has {gpus}", where=flag, fix=fix))
    elif most and not gpus:
        processes = "one process" if most == 1 else f"{most} processes"
        what = f"this machine has no GPU that can be used: {processes} on its CPU cores instead"
        findings.append(warning(what, where=flag))
    elif gpus and not most and any(job.command.launch is Launch.PER_GPU for job in plan.jobs):
        fix = f"add --num_gpus={gpus} to use them"
        findings.append(warning(f"the GPUs of this machine ({gpus}) stay idle", where="--num_gpus", fix=fix))
    return findings


def _check_hf_home(cluster: ClusterConfig, environment: Mapping[str, str]) -> list[Finding]:
    if cluster.skip_hf_home_check:
        return []
    where = f"env_vars of cluster {cluster.name!r}"
    home = environment.get("HF_HOME")
    if home is None:
        fix = "add HF_HOME=/a/mounted/folder, or use --skip_hf_home_check"
        return [error("HF_HOME is not set, so every job would download its models anew", where=where, fix=fix)]
    if PathMap.of(cluster).to_cluster(home) is None:
        return [error(f"HF_HOME {home} is on no mount", where=where, fix="mount it, or use --skip_hf_home_check")]
    return []
