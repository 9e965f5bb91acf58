"""What Slurm says about itself, out of the text that its programs print."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from skills_pipe.pipeline.cluster.slurm_time import parse_time

_GPUS = re.compile(r"\bgpu(?::(?P<type>[\w.-]*[A-Za-z][\w.-]*))?:(?P<count>\d+)(?![\w.-])")
_UNLIMITED = ("UNLIMITED", "INFINITE", "NONE", "N/A", "(null)", "")
_GONE = ("down", "drain", "fail", "maint", "inval", "unk")
"""Beginnings of the states of nodes that run nothing for now."""


@dataclass(frozen=True, kw_only=True)
class NodeGroup:
    """Nodes of a partition that are alike.

    Attributes:
        count: how many they are.
        gpus: of each of them.
        gpu_type: ``h100``, None if Slurm does not say.
        usable: they are neither down nor drained.
    """

    count: int
    gpus: int = 0
    gpu_type: str | None = None
    usable: bool = True


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A partition and its limits; None where there is none.

    Attributes:
        state: ``UP``, ``DOWN`` (takes jobs, starts none), ``DRAIN`` or ``INACTIVE`` (take none).
        max_seconds: longest time limit of a job.
        max_nodes: most nodes of a job.
        accounts, qos: who may use it; None for all.
        denied_accounts: who may not.
    """

    name: str
    state: str = "UP"
    default: bool = False
    max_seconds: int | None = None
    max_nodes: int | None = None
    accounts: tuple[str, ...] | None = None
    denied_accounts: tuple[str, ...] = ()
    qos: tuple[str, ...] | None = None
    nodes: tuple[NodeGroup, ...] = ()

    @property
    def num_nodes(self) -> int:
        """All of its nodes."""
        return sum(group.count for group in self.nodes)

    @property
    def gpu_types(self) -> frozenset[str]:
        """Types of its GPUs, as far as Slurm tells."""
        return frozenset(group.gpu_type for group in self.nodes if group.gpu_type)

    def nodes_with(self, gpus: int, *, usable: bool = False) -> int:
        """Nodes that have so many GPUs at least."""
        return sum(group.count for group in self.nodes if group.gpus >= gpus and (group.usable or not usable))


@dataclass(frozen=True, kw_only=True)
class Association:
    """What this user may do: an account, maybe on one partition only, with these qualities of service.

    Attributes:
        default_qos: what jobs get that name none; None where that is Slurm's own choice.
    """

    account: str
    partition: str | None = None
    qos: tuple[str, ...] = ()
    max_submit: int | None = None
    default_qos: str | None = None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What sbatch says about a job that it was not to submit."""

    accepted: bool
    words: str


@dataclass(frozen=True, kw_only=True)
class SlurmFacts:
    """A cluster as Slurm describes it.

    Attributes:
        associations: of this user; None without accounting.
        max_submit: quality of service -> most jobs of one user in it; only those with a limit.
        queued: (quality of service, account) of each job that this user has in the queue.
        enforced: what accounting enforces: ``associations``, ``limits``, ``qos``.
        trials: name of a header -> sbatch's answer.
    """

    partitions: Mapping[str, Partition] = field(default_factory=dict)
    associations: tuple[Association, ...] | None = None
    max_submit: Mapping[str, int] | None = None
    queued: tuple[tuple[str, str], ...] = ()
    enforced: frozenset[str] = frozenset()
    trials: Mapping[str, Trial] = field(default_factory=dict)

    @property
    def default_partition(self) -> str | None:
        """Where jobs go that name none."""
        return next((partition.name for partition in self.partitions.values() if partition.default), None)


def read_facts(asked: Mapping[str, tuple[int, str]]) -> SlurmFacts:
    """Facts from what programs ended with and printed, by the names of :mod:`...checks.questions`."""
    lines = {name: out.splitlines() if code == 0 else None for name, (code, out) in asked.items()}
    qos = lines.get("qos")
    associations = lines.get("associations")
    return SlurmFacts(
        partitions=_partitions(lines.get("partitions") or [], lines.get("nodes") or []),
        associations=None if associations is None else tuple(_association(line) for line in associations if line),
        max_submit=None if qos is None else _max_submit(qos),
        queued=_queued(lines.get("queue") or []),
        enforced=frozenset(_enforced("".join(lines.get("enforce") or []))),
        trials={
            name.removeprefix("test "): Trial(accepted=code == 0, words=_reason(out))
            for name, (code, out) in asked.items()
            if name.startswith("test ")
        },
    )


def _partitions(described: list[str], nodes: list[str]) -> dict[str, Partition]:
    groups: dict[str, list[NodeGroup]] = {}
    for line in nodes:
        partition, _, _, count, gres, state = line.split("|")
        usable = not state.lower().startswith(_GONE)
        groups.setdefault(partition, []).append(_group(int(count), gres, usable=usable))
    found = {}
    for line in described:
        values = dict(word.partition("=")[::2] for word in line.split() if "=" in word)
        name = values.get("PartitionName")
        if name:
            found[name] = _partition(name, values, tuple(groups.get(name, ())))
    return found


def _partition(name: str, values: Mapping[str, str], nodes: tuple[NodeGroup, ...]) -> Partition:
    return Partition(
        name=name,
        state=values.get("State", "UP"),
        default=values.get("Default") == "YES",
        max_seconds=None if _unlimited(values.get("MaxTime")) else parse_time(values["MaxTime"]),
        max_nodes=None if _unlimited(values.get("MaxNodes")) else int(values["MaxNodes"]),
        accounts=_names(values.get("AllowAccounts", "ALL")),
        denied_accounts=_names(values.get("DenyAccounts", "ALL")) or (),
        qos=_names(values.get("AllowQos", "ALL")),
        nodes=nodes,
    )


def _group(count: int, gres: str, *, usable: bool) -> NodeGroup:
    """``gpu:h100:8(S:0-1),nvme:1`` and its like; several types on one node add up."""
    found = [match.groupdict() for match in _GPUS.finditer(gres)]
    types = [match["type"] for match in found if match["type"]]
    return NodeGroup(
        count=count,
        gpus=sum(int(match["count"]) for match in found),
        gpu_type=types[0] if len(types) == 1 else None,
        usable=usable,
    )


def _association(line: str) -> Association:
    account, partition, qos, limit, default_qos = line.split("|")
    return Association(
        account=account,
        partition=partition or None,
        qos=tuple(name for name in qos.split(",") if name),
        max_submit=int(limit) if limit.isdecimal() else None,
        default_qos=default_qos or None,
    )


def _max_submit(lines: list[str]) -> dict[str, int]:
    limits = {}
    for line in lines:
        qos, *numbers = line.split("|")
        given = [int(number) for number in numbers if number.isdecimal()]
        if given:
            limits[qos] = min(given)
    return limits


def _queued(lines: list[str]) -> tuple[tuple[str, str], ...]:
    return tuple((qos, account) for qos, _, account in (line.partition("|") for line in lines))


def _enforced(line: str) -> list[str]:
    return [word.strip().lower() for word in line.partition("=")[2].split(",") if word.strip() not in ("", "none")]


def _reason(words: str) -> str:
    """What sbatch says: the refusal, or when the job could start."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    told = [re.sub(r"^(sbatch: )?(error: |allocation failure: )?", "", line) for line in lines]
    return "; ".join(dict.fromkeys(told))


def _names(text: str) -> tuple[str, ...] | None:
    return None if text in ("ALL", *_UNLIMITED) else tuple(text.split(","))


def _unlimited(text: str | None) -> bool:
    return text is None or text.upper() in _UNLIMITED
