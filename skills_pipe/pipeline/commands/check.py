"""``ns check``: everything that can be found out before a job waits in a queue, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from skills_pipe.errors import OptionError, did_you_mean
from skills_pipe.pipeline.checks.finding import Finding, error
from skills_pipe.pipeline.checks.request import Request
from skills_pipe.pipeline.cluster.config import ClusterConfig, ClusterLike
from skills_pipe.pipeline.cluster.load import load_cluster
from skills_pipe.pipeline.cluster.paths import RUN_DIR
from skills_pipe.pipeline.console.command import Command as LauncherCommand
from skills_pipe.pipeline.console.registry import ENTRIES, Entry
from skills_pipe.pipeline.examine import Examination, examine
from skills_pipe.pipeline.launch import Launcher
from skills_pipe.pipeline.options.declaration import argument, option
from skills_pipe.pipeline.options.groups import JobOptions, read_cluster
from skills_pipe.pipeline.plan import Command, Job, Plan, Resources, Stage

_STAGE = "configuration"


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Check."""

    words: tuple[str, ...] = argument(
        (),
        metavar="COMMAND",
        verbatim=True,
        help="a command of ns with its options: nemo_rl sft --cluster=...; none checks the configuration alone",
    )
    cluster: ClusterLike = option(
        None, parse=read_cluster, metavar="NAME", help="cluster configuration; without it this machine"
    )
    config_dir: str | None = option(None, metavar="DIR", help="folder of cluster configurations")


def run(options: CheckOptions, extras: tuple[str, ...]) -> int:
    """Show what was looked at and what is wrong; 2 if something would stop a submission."""
    from skills_pipe.pipeline.display.examination import show_examination

    found = _of_command(options) if options.words else check_configuration(_cluster(options))
    show_examination(found)
    return 2 if found.errors else 0


COMMAND = LauncherCommand(options=CheckOptions, run=run)


def check_configuration(cluster: ClusterConfig) -> Examination:
    """Check a cluster configuration by itself: its folders, images, partitions, account and container runtime."""
    from skills_pipe.pipeline.decisions.preview import preview

    plan = configuration_plan(cluster)
    request = Request(options=JobOptions(cluster=cluster), extras=(), cluster=cluster, plan=plan)
    checks = {"job_dir": _check_job_dir} if cluster.is_local else {}
    return examine(request, lambda along: preview(plan, cluster, along=along), checks, runtime=True)


def configuration_plan(cluster: ClusterConfig) -> Plan:
    """A job for each partition that a configuration names, and for each of its containers; they do nothing."""
    partitions = [cluster.partition, cluster.cpu_partition, *cluster.time_limits]
    any_container = next(iter(cluster.containers), "nemo-skills")
    wanted = [
        *((f"partition-{name}", name, any_container) for name in dict.fromkeys(partitions) if name),
        *((f"container-{name}", cluster.partition, name) for name in cluster.containers),
    ]
    jobs = tuple(
        Job(
            name=name,
            stage=_STAGE,
            command=Command(argv=("true",), container=container, working_dir=cluster.working_dir),
            resources=Resources(partition=partition, qos=cluster.qos, time_limit=cluster.time_limit(partition)),
            log_dir=RUN_DIR,
        )
        for name, partition, container in wanted
    )
    stages = (Stage(name=_STAGE, output=None),)
    return Plan(expname="check", command="check", stages=stages, jobs=jobs, mounts=cluster.mounts)


def _check_job_dir(request: Request[JobOptions]) -> list[Finding]:
    """Whether this machine can keep records; of a cluster that is asked together with its other files."""
    folder = Path(request.cluster.job_dir)
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        return []
    what = f"no records can be kept in {folder}: {existing} cannot be written to"
    return [error(what, where=f"job_dir of cluster {request.cluster.name!r}", fix="choose another folder")]


def _cluster(options: CheckOptions) -> ClusterConfig:
    return load_cluster(options.cluster, options.config_dir)


def _of_command(options: CheckOptions) -> Examination:
    entry, words = _split(options.words)
    command = entry.load()
    if not isinstance(command.run, Launcher):
        raise OptionError(f"ns {entry.name} submits nothing that could be checked", fix="see `ns check --help`")
    own = {"cluster": options.cluster, "config_dir": options.config_dir}
    given = {name: value for name, value in own.items() if value is not None}
    parsed, extras = command.parse(words, {**given, "dry_run": True})
    return command.run.examine(parsed, extras)


def _split(words: Sequence[str]) -> tuple[Entry, Sequence[str]]:
    """The command that words begin with, and the words behind its name."""
    for entry in ENTRIES:
        length = len(entry.name.split())
        if entry.name.split() == list(words[:length]):
            return entry, words[length:]
    name = " ".join(word for word in words[:2] if not word.startswith(("-", "+")))
    fix = did_you_mean(name, [entry.name for entry in ENTRIES]) or "`ns --help` lists all of them"
    raise OptionError(f"there is no command {name!r}", where="ns check", fix=fix)
