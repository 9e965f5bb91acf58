"""``ns setup``: write a cluster configuration, by questions or all by flags, and try it out."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skills_pipe.artifacts import atomic
from skills_pipe.errors import OptionError
from skills_pipe.pipeline.checks.questions import Questions, ask
from skills_pipe.pipeline.cluster.config import (
    ENV_CONFIG_DIR,
    ClusterConfig,
    ContainerRuntime,
    ExecutorKind,
    SshTunnel,
    is_secret,
)
from skills_pipe.pipeline.cluster.draft import Draft
from skills_pipe.pipeline.cluster.file import parse_mount, read_mapping
from skills_pipe.pipeline.commands.check import check_configuration
from skills_pipe.pipeline.console.command import Command as LauncherCommand
from skills_pipe.pipeline.options.declaration import option, switch
from skills_pipe.pipeline.transport.reach import transport_of

if TYPE_CHECKING:
    from rich.console import Console

    from skills_pipe.pipeline.checks.slurm_facts import SlurmFacts


def _read_mounts(value: Any) -> tuple[str, ...]:
    texts = _read_list(value)
    for text in texts:
        parse_mount(text)
    return texts


def _read_list(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _read_variables(value: Any) -> tuple[str, ...]:
    texts = _read_list(value)
    for text in texts:
        name, equals, _ = text.partition("=")
        if equals and is_secret(name):
            fix = f"write --env={name}: its value is taken from the environment when a run is submitted"
            raise OptionError(f"the value of {name} would stand in a file", fix=fix)
    return texts


def _read_containers(value: Any) -> tuple[str, ...]:
    texts = _read_list(value)
    for text in texts:
        name, _, image = text.partition("=")
        if not name or not image:
            raise OptionError(f"{text!r} names no image", fix="write --container=nemo-rl=/images/rl.sqsh")
    return texts


@dataclass(frozen=True, kw_only=True)
class SetupOptions:
    """Setup."""

    name: str | None = option(None, metavar="NAME", help="name of the configuration: --cluster=NAME of other commands")
    executor: ExecutorKind | None = option(None, help="where jobs run: slurm, local or nemo_run")
    job_dir: str | None = option(None, metavar="PATH", help="folder on the cluster for scripts and records of runs")
    account: str | None = option(None, metavar="NAME", help="account of the jobs")
    partition: str | None = option(None, metavar="NAME", help="partition of the jobs")
    cpu_partition: str | None = option(None, metavar="NAME", help="partition of jobs without a GPU")
    qos: str | None = option(None, metavar="NAME", help="quality of service of the jobs")
    default_timeout: str | None = option(None, metavar="TIME", help="time limit of a job, in any form of Slurm's")
    container_runtime: ContainerRuntime | None = option(None, help="what starts the containers")
    container: tuple[str, ...] = option(
        (), parse=_read_containers, metavar="NAME=IMAGE", help="image of a container; repeat it for several"
    )
    mount: tuple[str, ...] = option(
        (), parse=_read_mounts, metavar="SRC:DST[:ro]", help="folder that jobs see; repeat it for several"
    )
    env: tuple[str, ...] = option(
        (), parse=_read_variables, metavar="NAME[=VALUE]", help="variable of the jobs; repeat it for several"
    )
    host: str | None = option(None, metavar="HOST", help="login node to reach through ssh; without it this machine")
    user: str | None = option(None, metavar="NAME", help="user there")
    identity: str | None = option(None, metavar="PATH", help="file with the key for ssh")
    config_dir: str | None = option(None, metavar="DIR", help="folder of cluster configurations")
    yes: bool = switch(help="ask nothing: what the flags leave out stays out")
    overwrite: bool = switch(help="replace a configuration of this name")


def run(options: SetupOptions, extras: tuple[str, ...]) -> int:
    """Write a configuration and check it; 2 if something about it is wrong."""
    from rich.console import Console

    from skills_pipe.pipeline.display.examination import show_examination

    console = Console(highlight=False)
    asks = sys.stdin.isatty() and not options.yes
    draft = _ask(_draft(options), console) if asks else _complete(_draft(options))
    path = _path(options, draft)
    replaced = path.exists()
    if replaced and not options.overwrite and not (asks and _may_replace(path, console)):
        raise OptionError(f"{path} is there already", where="--name", fix="choose another name, or add --overwrite")
    cluster = read_mapping(draft.mapping(), name=draft.name or "", where="what was given")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, draft.text())
    print(f"{path} is {'replaced' if replaced else 'written'}")
    found = check_configuration(cluster)
    show_examination(found)
    again = f"ns check --cluster={draft.name}{_elsewhere(options)}"
    if found.errors:
        print(f"correct {path}, then: {again}")
        return 2
    where = f"--cluster={draft.name}{_elsewhere(options)}"
    print(f"next: ns nemo_rl sft {where} --output_dir=... --hf_model=... --training_data=... --num_gpus=8 --dry_run")
    return 0


COMMAND = LauncherCommand(options=SetupOptions, run=run)


def _draft(options: SetupOptions) -> Draft:
    given = {field.name: getattr(options, field.name) for field in fields(Draft) if hasattr(options, field.name)}
    return Draft(**given, containers=options.container, mounts=options.mount)


def _complete(draft: Draft) -> Draft:
    """The draft, if the flags say all that a configuration needs."""
    if draft.missing:
        names = ", ".join(f"--{name}" for name in draft.missing)
        verb = "is" if len(draft.missing) == 1 else "are"
        raise OptionError(f"{names} {verb} missing", fix="name them, or answer the questions on a terminal")
    return draft


def _ask(draft: Draft, console: Console) -> Draft:
    from skills_pipe.pipeline.commands.setup_questions import ask_containers, ask_jobs, ask_place

    draft = ask_place(draft, console)
    if draft.executor is not ExecutorKind.SLURM:
        return _complete(draft)
    return _complete(ask_containers(ask_jobs(draft, _facts(draft), console), console))


def _may_replace(path: Path, console: Console) -> bool:
    from skills_pipe.pipeline.commands.setup_questions import ask_overwrite

    return ask_overwrite(str(path), console)


def _facts(draft: Draft) -> SlurmFacts | None:
    """What Slurm offers; None where it does not answer."""
    job_dir = draft.job_dir or "/"
    tunnel = (
        SshTunnel(host=draft.host, user=draft.user, identity=draft.identity, job_dir=job_dir) if draft.host else None
    )
    place = ClusterConfig(name=draft.name or "", executor=ExecutorKind.SLURM, job_dir=job_dir, ssh_tunnel=tunnel)
    return ask(Questions(slurm=True), transport_of(place)).slurm


def _path(options: SetupOptions, draft: Draft) -> Path:
    name = draft.name or ""
    if not name or "/" in name or name.startswith("."):
        raise OptionError(f"{name!r} cannot be the name of a file", where="--name", fix="use letters, digits and -")
    folder = options.config_dir or os.environ.get(ENV_CONFIG_DIR) or "cluster_configs"
    return Path(folder) / f"{name}.yaml"


def _elsewhere(options: SetupOptions) -> str:
    return f" --config_dir={options.config_dir}" if options.config_dir else ""
