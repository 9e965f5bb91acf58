"""The questions of ``ns setup``: what the flags have not said, with what Slurm offers as choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.prompt import Confirm, Prompt
from rich.table import Table

from skills_pipe.errors import UserError
from skills_pipe.pipeline.checks.slurm_facts import Partition, SlurmFacts
from skills_pipe.pipeline.cluster.config import ContainerRuntime, ExecutorKind
from skills_pipe.pipeline.cluster.draft import Draft
from skills_pipe.pipeline.cluster.file import parse_mount
from skills_pipe.pipeline.cluster.slurm_time import format_time, parse_time

_IMAGES = {"nemo-rl": "training and conversion", "nemo-skills": "everything else"}
"""What the containers that every cluster needs are for."""


def ask_place(draft: Draft, console: Console) -> Draft:
    """Name, executor and how to reach the cluster."""
    if draft.name is None:
        draft = replace(draft, name=Prompt.ask("Name of the configuration", default="slurm", console=console))
    if draft.executor is None:
        kinds = [ExecutorKind.SLURM.value, ExecutorKind.LOCAL.value]
        answer = Prompt.ask("Where jobs run: on a Slurm cluster or on this machine", choices=kinds, console=console)
        draft = replace(draft, executor=ExecutorKind(answer))
    if draft.executor is ExecutorKind.SLURM and draft.host is None:
        fewer = "Host of a login node, as ssh knows it (nothing: this machine is one)"
        draft = replace(draft, host=_optional(fewer, console))
    return draft


def ask_jobs(draft: Draft, facts: SlurmFacts | None, console: Console) -> Draft:
    """Folder, account, partitions and time limit; ``facts`` are what Slurm says, if it answers."""
    if draft.job_dir is None:
        draft = replace(draft, job_dir=Prompt.ask("Folder on the cluster for records of runs", console=console))
    if facts is not None and draft.partition is None:
        console.print(_partitions_table(facts))
    names = list(facts.partitions) if facts else None
    if draft.account is None:
        accounts = list(dict.fromkeys(a.account for a in facts.associations)) if facts and facts.associations else None
        draft = replace(draft, account=_choose("Account", accounts, console))
    if draft.partition is None:
        default = facts.default_partition if facts else None
        draft = replace(draft, partition=_choose("Partition of jobs", names, console, default=default))
    if draft.cpu_partition is None:
        draft = replace(draft, cpu_partition=_choose("Partition of jobs without a GPU", names, console))
    if draft.default_timeout is None:
        partition = facts.partitions.get(draft.partition or "") if facts else None
        draft = replace(draft, default_timeout=_time_limit(partition, console))
    return draft


def ask_containers(draft: Draft, console: Console) -> Draft:
    """Runtime, images, mounts and the home of Hugging Face."""
    if draft.container_runtime is None:
        kinds = [runtime.value for runtime in ContainerRuntime]
        answer = Prompt.ask("What starts containers", choices=kinds, default="pyxis", console=console)
        draft = replace(draft, container_runtime=ContainerRuntime(answer))
    if draft.container_runtime is ContainerRuntime.NONE:
        return draft
    if not draft.containers:
        found = {name: _optional(f"Image of {name}, for {use}", console) for name, use in _IMAGES.items()}
        draft = replace(draft, containers=tuple(f"{name}={image}" for name, image in found.items() if image))
    if not draft.mounts:
        draft = replace(draft, mounts=_mounts(console))
    if not any(item.startswith("HF_HOME") for item in draft.env):
        home = _optional("HF_HOME, as jobs see it: a mounted folder for models and data", console)
        draft = replace(draft, env=(*draft.env, f"HF_HOME={home}") if home else draft.env)
    return draft


def ask_overwrite(path: str, console: Console) -> bool:
    """Whether a file that is there may be replaced."""
    return Confirm.ask(f"{path} is there already. Replace it?", default=False, console=console)


def _optional(question: str, console: Console) -> str | None:
    return Prompt.ask(question, default="", show_default=False, console=console) or None


def _choose(question: str, known: Sequence[str] | None, console: Console, *, default: str | None = None) -> str | None:
    """One of ``known``, anything where nothing is known; nothing without a default is no answer."""
    if known is None:
        return _optional(question, console)
    text = f"{question} ({', '.join(known)})"
    while True:
        answer = Prompt.ask(text, default=default or "", show_default=bool(default), console=console)
        if not answer or answer in known:
            return answer or None
        console.print(f"[red]there is no {answer!r}")


def _time_limit(partition: Partition | None, console: Console) -> str | None:
    most = partition.max_seconds if partition else None
    default = format_time(most) if most else "04:00:00"
    while True:
        answer = Prompt.ask("Time limit of a job", default=default, console=console)
        try:
            parse_time(answer)
        except UserError as error:
            console.print(f"[red]{error}")
        else:
            return answer


def _mounts(console: Console) -> tuple[str, ...]:
    found: list[str] = []
    while True:
        answer = _optional("Mount, as /on/cluster:/in/container[:ro] (nothing: no more)", console)
        if answer is None:
            return tuple(found)
        try:
            parse_mount(answer)
        except UserError as error:
            console.print(f"[red]{error}")
        else:
            found.append(answer)


def _partitions_table(facts: SlurmFacts) -> Table:
    table = Table("partition", "nodes", "GPUs", "time limit", box=None, pad_edge=False)
    for partition in facts.partitions.values():
        gpus = max((group.gpus for group in partition.nodes), default=0)
        types = ", ".join(sorted(partition.gpu_types))
        limit = format_time(partition.max_seconds) if partition.max_seconds else "none"
        name = f"{partition.name}{' (default)' if partition.default else ''}"
        table.add_row(name, str(partition.num_nodes), f"{gpus} {types}".strip(), limit)
    return table
