"""Groups of options that commands share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ClusterLike
from skills_pipe.pipeline.cluster.file import parse_mount
from skills_pipe.pipeline.cluster.slurm_time import format_time, parse_time
from skills_pipe.pipeline.decisions.decide import OnChange
from skills_pipe.pipeline.options.declaration import option, switch
from skills_pipe.pipeline.plan import Mount, Resources

EXPNAME_HELP = "name of the experiment: prefix of its jobs, and what --run_after of a later command refers to"


def read_cluster(value: Any) -> ClusterLike:
    """A cluster as the Python functions take it: name, path, contents or a loaded configuration."""
    if value is None or isinstance(value, (str, Mapping, ClusterConfig)):
        return value
    raise OptionError(f"{value!r} is not the name of a cluster configuration")


def read_mounts(value: Any) -> tuple[Mount, ...]:
    """Mounts from ``source:target,source:target:ro``, a list of such texts, or a dictionary source -> target."""
    if isinstance(value, Mapping):
        return tuple(parse_mount(f"{source}:{target}") for source, target in value.items())
    items = [value] if isinstance(value, str) else list(value)
    return tuple(parse_mount(part) for item in items for part in item.split(",") if part)


def read_time(value: Any) -> str:
    """A time limit in any form of Slurm, as ``D-HH:MM:SS``."""
    return format_time(parse_time(value))


def read_run_after(value: Any) -> tuple[str, ...]:
    """References to earlier runs, from names, paths of run folders and submissions, alone or in a list."""
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    references: list[str] = []
    for item in items:
        if isinstance(item, str):
            references += [part.strip() for part in item.split(",") if part.strip()]
        elif hasattr(item, "run_dir"):
            references.append(str(item.run_dir))
        else:
            raise OptionError(f"{item!r} is neither the name of an experiment nor a submission")
    return tuple(references)


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Where to run."""

    cluster: ClusterLike = option(
        None,
        parse=read_cluster,
        metavar="NAME",
        help="cluster configuration: NAME.yaml in the folder of configurations, or a path ending in .yaml; "
        "without it the file that NEMO_SKILLS_CONFIG names, else this machine",
    )
    config_dir: str | None = option(
        None,
        metavar="DIR",
        help="folder of cluster configurations; without it the one that NEMO_SKILLS_CONFIG_DIR names, "
        "else ./cluster_configs",
    )
    run_after: tuple[str, ...] = option(
        (),
        parse=read_run_after,
        metavar="EXPNAME",
        help="start only after these experiments have ended well; repeat it for several",
    )
    mount_paths: tuple[Mount, ...] = option(
        (),
        parse=read_mounts,
        metavar="SRC:DST[:ro],...",
        help="further folders of the cluster that jobs see, beside the mounts of the configuration",
    )
    log_dir: str | None = option(
        None, metavar="PATH", help="folder for the logs of the jobs; by default beside what they make"
    )
    installation_command: str | None = option(
        None, metavar="SHELL", help="shell command that each node of the main jobs runs once before they start"
    )
    skip_hf_home_check: bool = switch(help="do not insist that HF_HOME is set and mounted for jobs in containers")


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """Slurm."""

    partition: str | None = option(None, metavar="NAME", help="partition, in place of that of the configuration")
    qos: str | None = option(None, metavar="NAME", help="quality of service, in place of that of the configuration")
    time_min: str | None = option(
        None,
        parse=read_time,
        metavar="TIME",
        help="least time limit that Slurm may grant in order to start the jobs sooner",
    )
    exclusive: bool = switch(help="take whole nodes")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What to do with what is there."""

    dry_run: bool = switch(help="show the plan and the findings, and submit nothing")
    show_scripts: bool = switch(help="with --dry_run: print the scripts too, byte for byte as they would be submitted")
    explain: bool = switch(help="say for each stage why it runs or is skipped, and what has changed")
    on_change: OnChange | None = option(
        None, help="what to do with an output that was made with other options: go on from it, or begin anew"
    )
    rerun: bool = switch(help="run every stage, finished or not")


@dataclass(frozen=True, kw_only=True)
class CodeOptions:
    """Code of the jobs, on Slurm: the working tree one is in, uncommitted changes included."""

    reuse_code: bool = switch(
        True,
        on=("--reuse_code",),
        off=("--no-reuse_code",),
        help="all commands of one Python process run the code that the first of them has packed",
    )
    reuse_code_exp: str | None = option(None, metavar="EXPNAME", help="run the code of the newest run of an experiment")
    rerun_on_code_change: bool = switch(help="take outputs that other code has made for unfinished")


@dataclass(frozen=True, kw_only=True)
class CompatibilityOptions:
    """Accepted for command lines of NeMo-Skills, without effect."""

    check_mounted_paths: bool = switch(help="paths are always checked")


@dataclass(frozen=True, kw_only=True)
class JobOptions(ClusterOptions, SlurmOptions, RunOptions, CodeOptions, CompatibilityOptions):
    """All that commands which submit jobs have in common."""


def resources(
    options: SlurmOptions, cluster: ClusterConfig, *, num_gpus: int, num_nodes: int = 1, aside: bool = False
) -> Resources:
    """What a job asks for.

    Args:
        options: the options of its command.
        cluster: where it runs.
        num_gpus: on each node; without any it is a job for the partition of CPU jobs.
        num_nodes: nodes.
        aside: it is a CPU job beside the main jobs of its command, which ``--partition`` and ``--exclusive`` are for.
    """
    if num_gpus:
        partition = options.partition or cluster.partition
    elif aside:
        partition = cluster.cpu_partition or options.partition or cluster.partition
    else:
        partition = options.partition or cluster.cpu_partition or cluster.partition
    return Resources(
        num_nodes=num_nodes,
        num_gpus=num_gpus,
        partition=partition,
        qos=options.qos or cluster.qos,
        time_min=options.time_min,
        time_limit=cluster.time_limit(partition),
        exclusive=options.exclusive and not aside,
    )
