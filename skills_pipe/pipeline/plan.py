"""A plan: the jobs of a run, what they need, and in which order they may start. Frozen, pure, comparable.

A *stage* is what a user thinks of (train, convert, evaluate): it has an identity and one output, and is skipped when
that output is finished. A *job* is what a scheduler runs. Most stages have one job; a training stage is a chain of
time-limited ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from graphlib import CycleError, TopologicalSorter
from typing import Any

from skills_pipe.errors import PlanError


class EdgeKind(str, Enum):
    """When a job may start, seen from the job before it."""

    SUCCEEDED = "succeeded"
    """After it ended well (``afterok``)."""
    UNFINISHED = "unfinished"
    """After it ended without finishing the work (``afternotok``): the next segment of a chain."""
    ANY_SUCCEEDED = "any_succeeded"
    """After one of several ended well: the gate of a chain. A gate has no other kind of edge."""
    ENDED = "ended"
    """After it ended, however (``afterany``): to tell about it, never to build on it."""


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A job may start only when ``upstream`` (a job of this plan) ended as ``kind`` says."""

    upstream: str
    kind: EdgeKind = EdgeKind.SUCCEEDED


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder of the cluster that jobs see at another path."""

    source: str
    target: str
    read_only: bool = False


class Launch(str, Enum):
    """How many processes of a command start, and where."""

    BATCH = "batch"
    """One process on the first node, outside any container."""

    ONCE = "once"
    """One process in the whole job."""
    PER_GPU = "per_gpu"
    """One process per GPU on every node, joined into one process group (ranks)."""
    PER_NODE = "per_node"
    """``num_tasks`` processes on every node, which tell each other apart by ``SLURM_PROCID``."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a job asks for.

    Attributes:
        num_nodes: nodes.
        num_gpus: GPUs on each node; 0 is a CPU job.
        partition, qos, time_min: passed to Slurm as they are, None for the cluster's default.
        time_limit: ``D-HH:MM:SS``, None for no limit.
        exclusive: whole nodes.
    """

    num_nodes: int = 1
    num_gpus: int = 0
    partition: str | None = None
    qos: str | None = None
    time_min: str | None = None
    time_limit: str | None = None
    exclusive: bool = False


@dataclass(frozen=True, kw_only=True)
class Command:
    """A program of a job.

    Attributes:
        argv: tokens; ``python`` as the first one means the interpreter of the job's environment.
        container: key in ``containers`` of the cluster configuration, or an image; not used without containers.
        launch: once per job, one process per GPU, or ``num_tasks`` processes on every node.
        env: variables to set, on top of the cluster's.
        working_dir: None for the folder of the code.
        installation_command: shell text to run once per node before the command.
        secrets: names of the secret variables that it gets; None for all that the job has.
        mounts: whether its container sees the mounts; without them it sees nothing of the cluster.
    """

    argv: tuple[str, ...]
    container: str = "nemo-skills"
    launch: Launch = Launch.ONCE
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str | None = None
    installation_command: str | None = None
    num_tasks: int = 1
    secrets: tuple[str, ...] | None = None
    mounts: bool = True


MAIN = "main"
"""Name of the main command of a job among its members."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A command of a job, seen beside others: the main one, a model server, a sandbox, a second main command.

    Attributes:
        name: unique in its job: ``server``, ``sandbox``, ``main_1``; names its log, and it in errors.
        command: what runs.
        num_nodes, num_gpus: what it takes of the job; GPUs on each of its nodes.
        service: it is stopped when the main commands have ended; other members are waited for.
        ports: variables that get, in every command of the job, ports that are free on the first node.
        ready: path of a HTTP address on the first of the ports; what is no service starts once it answers 200.
        ready_seconds: how long it may take until then.
        public: others than this job ask it, so that its address has the name of its node.
    """

    name: str
    command: Command
    num_nodes: int = 1
    num_gpus: int = 0
    service: bool = False
    ports: tuple[str, ...] = ()
    ready: str | None = None
    ready_seconds: int = 3600
    public: bool = False

    @property
    def nodes(self) -> int:
        """Nodes on which processes of it start."""
        return 1 if self.command.launch is Launch.ONCE else self.num_nodes

    @property
    def tasks_per_node(self) -> int:
        """Processes of it on each of them."""
        if self.command.launch is Launch.PER_GPU:
            return max(1, self.num_gpus)
        return self.command.num_tasks if self.command.launch is Launch.PER_NODE else 1


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Place of a job in its chain: number ``index`` (from 0) of ``count``.

    Attributes:
        requeue: the job is the whole chain, and queues itself again until it has started ``count`` times.
    """

    index: int
    count: int
    requeue: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a scheduler runs: one command with its resources, its log and the jobs it waits for.

    Attributes:
        name: unique in the plan; also the job name in Slurm: ``my-exp-sft-0``.
        stage: name of the stage it belongs to.
        log_dir: container path of the folder for its logs.
        segment: set for the jobs of a chain: they write a verdict.
        beside: commands that run beside the main one.
        main_gpus: GPUs on each node for the main command; None for all that the job has.
    """

    name: str
    stage: str
    command: Command
    resources: Resources
    log_dir: str
    edges: tuple[Edge, ...] = ()
    segment: Segment | None = None
    beside: tuple[Member, ...] = ()
    main_gpus: int | None = None

    @property
    def members(self) -> tuple[Member, ...]:
        """All its commands, the main one first."""
        gpus = self.resources.num_gpus if self.main_gpus is None else self.main_gpus
        main = Member(name=MAIN, command=self.command, num_nodes=self.resources.num_nodes, num_gpus=gpus)
        return (main, *self.beside)

    @property
    def only_tells(self) -> bool:
        """Whether it waits for others to end, however they do: nothing is built on it, and it builds on nothing."""
        return bool(self.edges) and all(edge.kind is EdgeKind.ENDED for edge in self.edges)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A unit of work that is done or not done.

    Attributes:
        name: unique in the plan: ``sft``, ``convert-final-ckpt``, ``gsm8k``.
        output: container path of the file or folder it makes and seals with a manifest; None: it always runs.
        options: those that decide what the output is; part of its identity.
        inputs: container paths it reads that no stage of this plan makes; their fingerprints are part of its identity.
        upstream: stages of this plan whose outputs it reads: they count as inputs, by the identities of their makers.
        set_aside_with: container paths of what its jobs write beside the output and another one would write over or go
            on with, as metrics: set aside with the output, in this order, before it.
    """

    name: str
    output: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    upstream: tuple[str, ...] = ()
    set_aside_with: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything about a run that is known before it is submitted.

    Attributes:
        expname: name of the experiment, the key for ``run_after``.
        command: the ``ns`` command it came from, for people: ``nemo_rl sft``.
        stages, jobs: in an order in which every upstream comes first.
        run_after: experiments (or ``jobid:123``) that must have ended well before the roots start.
    """

    expname: str
    command: str
    stages: tuple[Stage, ...]
    jobs: tuple[Job, ...]
    mounts: tuple[Mount, ...] = ()
    run_after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_names(self)
        _check_order(self)
        for job in self.jobs:
            _check_gate(job)
            _check_members(job)

    def stage(self, name: str) -> Stage:
        """The stage of this name."""
        return next(stage for stage in self.stages if stage.name == name)

    def job(self, name: str) -> Job:
        """The job of this name."""
        return next(job for job in self.jobs if job.name == name)

    def jobs_of(self, stage: str) -> tuple[Job, ...]:
        """The jobs of a stage, in the order of its chain."""
        return tuple(job for job in self.jobs if job.stage == stage)

    def is_chain(self, stage: str) -> bool:
        """Whether one of the jobs of a stage does its work: each but the first starts if none before it did."""
        kinds = {edge.kind for job in self.jobs_of(stage) for edge in job.edges}
        return EdgeKind.UNFINISHED in kinds or any(job.segment for job in self.jobs_of(stage))

    def to_json(self) -> dict[str, Any]:
        """Plain value for ``plan.json``."""
        return asdict(self, dict_factory=_plain)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        """Read back what :meth:`to_json` gave."""
        return cls(
            expname=value["expname"],
            command=value["command"],
            stages=tuple(_stage_from_json(stage) for stage in value["stages"]),
            jobs=tuple(_job_from_json(job) for job in value["jobs"]),
            mounts=tuple(Mount(**mount) for mount in value["mounts"]),
            run_after=tuple(value["run_after"]),
        )

    def to_text(self) -> str:
        """The same plan gives the same text, byte for byte."""
        return json.dumps(self.to_json(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def chain(template: Job, *, count: int, requeue: bool = False) -> tuple[Job, ...]:
    """``count`` segments of one training stage, each running the same command; with ``requeue`` one job for them all.

    Segment k starts only if no earlier one finished the work. It repeats every edge of ``template`` and an edge to
    every earlier segment: a cancelled segment 0 would otherwise let segment 1 run although its upstream failed.
    """
    names = [f"{template.name}-{index}" for index in range(1 if requeue else count)]
    return tuple(
        replace(
            template,
            name=names[index],
            edges=template.edges + tuple(Edge(upstream=name, kind=EdgeKind.UNFINISHED) for name in names[:index]),
            segment=Segment(index=index, count=count, requeue=requeue),
        )
        for index in range(len(names))
    )


def gate(segments: Iterable[Job]) -> tuple[Edge, ...]:
    """Edges of the one job that starts when any segment of a chain has finished the work."""
    return tuple(Edge(upstream=job.name, kind=EdgeKind.ANY_SUCCEEDED) for job in segments)


def _check_names(plan: Plan) -> None:
    for kind, names in (("stage", [s.name for s in plan.stages]), ("job", [j.name for j in plan.jobs])):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise PlanError(f"two {kind}s of the plan have the name {twice[0]!r}", fix="rename one of them")
    known_stages = {stage.name for stage in plan.stages}
    for job in plan.jobs:
        if job.stage not in known_stages:
            raise PlanError(f"job {job.name!r} belongs to {job.stage!r}, which is no stage of the plan")
    for stage in plan.stages:
        unknown = set(stage.upstream) - known_stages
        if unknown:
            raise PlanError(f"stage {stage.name!r} reads from {sorted(unknown)[0]!r}, which is no stage of the plan")


def _check_order(plan: Plan) -> None:
    known = {job.name for job in plan.jobs}
    graph = {job.name: {edge.upstream for edge in job.edges} for job in plan.jobs}
    for name, upstream in graph.items():
        if upstream - known:
            raise PlanError(f"job {name!r} waits for {sorted(upstream - known)[0]!r}, which is no job of the plan")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise PlanError(f"jobs wait for each other in a circle: {' -> '.join(error.args[1])}") from error
    seen: set[str] = set()
    for job in plan.jobs:
        if graph[job.name] - seen:
            raise PlanError(f"job {job.name!r} stands before a job that it waits for")
        seen.add(job.name)


def _check_gate(job: Job) -> None:
    kinds = {edge.kind for edge in job.edges}
    if EdgeKind.ANY_SUCCEEDED in kinds and len(kinds) > 1:
        raise PlanError(
            f"job {job.name!r} mixes an any-of edge with others, which Slurm would turn into an any-of of all",
            fix="put a gate job between them",
        )


def _check_members(job: Job) -> None:
    names = [member.name for member in job.members]
    if len(set(names)) < len(names):
        raise PlanError(f"two commands of job {job.name!r} have the same name", fix="rename one of them")
    for member in job.beside:
        if member.ready and not member.ports:
            raise PlanError(f"{member.name!r} of job {job.name!r} has no port on which it could answer")
        if member.num_nodes > job.resources.num_nodes:
            raise PlanError(f"{member.name!r} takes more nodes than job {job.name!r} has")
    # Those that share a node must not share its GPUs.
    if sum(member.num_gpus for member in job.members) > max(job.resources.num_gpus, 0) and job.beside:
        raise PlanError(f"the commands of job {job.name!r} take more GPUs than it has")


def _plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value.value if isinstance(value, Enum) else value for name, value in items}


def _stage_from_json(value: Mapping[str, Any]) -> Stage:
    # Plans were written before with `metrics`: paths, one path, or null.
    known = {name: item for name, item in value.items() if name != "metrics"}
    beside = value.get("set_aside_with", value.get("metrics")) or ()
    return Stage(
        **{
            **known,
            "inputs": tuple(value["inputs"]),
            "upstream": tuple(value["upstream"]),
            "set_aside_with": (beside,) if isinstance(beside, str) else tuple(beside),
        }
    )


def _job_from_json(value: Mapping[str, Any]) -> Job:
    return Job(
        name=value["name"],
        stage=value["stage"],
        log_dir=value["log_dir"],
        command=_command_from_json(value["command"]),
        resources=Resources(**value["resources"]),
        edges=tuple(Edge(upstream=edge["upstream"], kind=EdgeKind(edge["kind"])) for edge in value["edges"]),
        segment=Segment(**value["segment"]) if value["segment"] else None,
        beside=tuple(_member_from_json(member) for member in value.get("beside", ())),
        main_gpus=value.get("main_gpus"),
    )


def _member_from_json(value: Mapping[str, Any]) -> Member:
    return Member(**{**value, "command": _command_from_json(value["command"]), "ports": tuple(value["ports"])})


def _command_from_json(value: Mapping[str, Any]) -> Command:
    return Command(
        **{
            **value,
            "argv": tuple(value["argv"]),
            "launch": Launch(value["launch"]),
            "env": tuple((name, text) for name, text in value["env"]),
            "secrets": None if value.get("secrets") is None else tuple(value["secrets"]),
        }
    )
