"""``ns run_cmd``: run any command as a job, where everything else runs too."""

from __future__ import annotations

from dataclasses import dataclass, replace

from skills_pipe.artifacts.names import ENV_SERVER_ADDRESS
from skills_pipe.errors import OptionError
from skills_pipe.pipeline.checks.finding import Finding
from skills_pipe.pipeline.checks.request import Request
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands.beside import beside_members, check_programs
from skills_pipe.pipeline.commands.log_folder import log_folder
from skills_pipe.pipeline.commands.servers import Hosted, HostOptions, ServerType
from skills_pipe.pipeline.console.command import Command as LauncherCommand
from skills_pipe.pipeline.launch import launch
from skills_pipe.pipeline.options.declaration import argument, option
from skills_pipe.pipeline.options.groups import EXPNAME_HELP, JobOptions, resources
from skills_pipe.pipeline.plan import (
    MAIN,
    Command,
    Edge,
    EdgeKind,
    Job,
    Launch,
    Member,
    Plan,
    Stage,
    gate,
)

STAGE = "command"
GATE = "one-of-them"


@dataclass(frozen=True, kw_only=True)
class RunCmdOptions(HostOptions, JobOptions):
    """Command."""

    argv: tuple[str, ...] = argument(
        (), metavar="COMMAND", verbatim=True, help="program and its arguments, everything from the first word on"
    )
    command: tuple[str, ...] = option(
        (), metavar="SHELL", help="shell text to run, in place of COMMAND; several of them run side by side in one job"
    )
    container: tuple[str, ...] = option(
        ("nemo-skills",),
        metavar="NAME",
        help="name of a container of the configuration, or an image; one for all commands, or one for each",
    )
    num_gpus: tuple[int, ...] = option(
        (0,), metavar="N", help="GPUs on each node; one number for each command, or for each of several one"
    )
    num_nodes: int = option(1, help="nodes of the job")
    num_tasks: int = option(1, help="processes of each command on each node")
    model: str | None = option(
        None, metavar="PATH|ID", help="model that a server in the job answers for, before the command starts"
    )
    server_type: ServerType | None = option(
        None, metavar="TYPE", help="what serves the model: vllm, sglang, trtllm, megatron, or generic"
    )
    server_address: str | None = option(
        None, metavar="URL", help=f"server that runs elsewhere; commands find it in {ENV_SERVER_ADDRESS}"
    )
    dependent_jobs: int = option(
        0, help="further jobs of the same command: each starts if none before it ended well, as after a time limit"
    )
    expname: str = option("script", help=EXPNAME_HELP)


def plan(options: RunCmdOptions, extras: tuple[str, ...], cluster: ClusterConfig) -> Plan:
    """One job, or a chain of the same job; it always runs, for nothing is known of what it makes."""
    _check(options)
    commands = _commands(options, cluster)
    hosted = _hosted(options, cluster)
    beside = (*_others(options, commands), *beside_members(options, hosted))
    asked = resources(
        options,
        cluster,
        num_gpus=sum(_gpus(options, commands)) + (hosted.gpus if hosted else 0),
        num_nodes=max(options.num_nodes, hosted.nodes if hosted else 1),
    )
    job = Job(
        name=options.expname,
        stage=STAGE,
        command=commands[0],
        resources=asked,
        log_dir=log_folder(options.log_dir, options.expname, cluster),
        beside=beside,
        main_gpus=_gpus(options, commands)[0] if beside else None,
    )
    jobs, stages = _repeated(job, options, cluster)
    inputs = (hosted.model,) if hosted else ()
    return Plan(
        expname=options.expname,
        command="run_cmd",
        stages=(Stage(name=STAGE, output=None, inputs=inputs), *stages),
        jobs=jobs,
        mounts=cluster.mounts,
        run_after=options.run_after,
    )


def check(request: Request[RunCmdOptions]) -> list[Finding]:
    """Whether what runs beside the command can run there."""
    return check_programs(request.plan, request.cluster)


COMMAND = LauncherCommand(
    options=RunCmdOptions, run=launch(plan, checks={"server": check}, shows=lambda job: job.stage == STAGE)
)


def _check(options: RunCmdOptions) -> None:
    if bool(options.argv) == bool(options.command):
        raise OptionError(
            "give either a command or --command, not " + ("both" if options.argv else "none"),
            fix="write `ns run_cmd [options] PROGRAM ARG ...`, or --command='shell text'",
        )
    if len(options.argv) == 1 and " " in options.argv[0]:
        raise OptionError(
            f"{options.argv[0]!r} is one word, so it would be the name of a program",
            fix="write the words apart, or give shell text as --command='...'",
        )
    least = {"num_nodes": 1, "num_tasks": 1, "dependent_jobs": 0}
    values = [(name, getattr(options, name), low) for name, low in least.items()]
    for name, value, low in (*values, *(("num_gpus", count, 0) for count in options.num_gpus)):
        if value < low:
            raise OptionError(f"--{name} is {value}", fix=f"set it to {low} or more")
    count = max(1, len(options.command))
    for name in ("container", "num_gpus"):
        given = len(getattr(options, name))
        if given not in (1, count):
            raise OptionError(f"--{name} has {given} values for {count} commands", fix="give one, or one for each")
    if bool(options.model) != bool(options.server_type) and not options.server_address:
        missing = "--server_type" if options.model else "--model"
        raise OptionError(f"{missing} is missing", fix="a server in the job needs both a model and a type")
    if options.server_address and (options.server_gpus is not None or options.server_entrypoint):
        raise OptionError(
            "a server either runs elsewhere or in the job",
            where="--server_address",
            fix="drop it, or drop --server_gpus and --server_entrypoint",
        )


def _commands(options: RunCmdOptions, cluster: ClusterConfig) -> tuple[Command, ...]:
    argvs: list[tuple[str, ...]] = [("bash", "-c", text) for text in options.command] or [options.argv]
    env = ((ENV_SERVER_ADDRESS, options.server_address),) if options.server_address else ()
    containers = options.container * len(argvs) if len(options.container) == 1 else options.container
    several = options.num_nodes > 1 or options.num_tasks > 1
    return tuple(
        Command(
            argv=argv,
            container=container,
            launch=Launch.PER_NODE if several else Launch.ONCE,
            num_tasks=options.num_tasks,
            env=env,
            working_dir=cluster.working_dir,
            installation_command=options.installation_command,
        )
        for argv, container in zip(argvs, containers, strict=True)
    )


def _gpus(options: RunCmdOptions, commands: tuple[Command, ...]) -> tuple[int, ...]:
    return options.num_gpus * len(commands) if len(options.num_gpus) == 1 else options.num_gpus


def _others(options: RunCmdOptions, commands: tuple[Command, ...]) -> tuple[Member, ...]:
    """The commands after the first."""
    gpus = _gpus(options, commands)
    return tuple(
        Member(name=f"{MAIN}_{index}", command=command, num_nodes=options.num_nodes, num_gpus=gpus[index])
        for index, command in enumerate(commands)
        if index
    )


def _hosted(options: RunCmdOptions, cluster: ClusterConfig) -> Hosted | None:
    if options.model is None or options.server_type is None or options.server_address:
        return None
    return Hosted(
        model=cluster.absolute_or_id(options.model),
        server_type=options.server_type,
        options=options,
        working_dir=cluster.working_dir,
    )


def _repeated(job: Job, options: RunCmdOptions, cluster: ClusterConfig) -> tuple[tuple[Job, ...], tuple[Stage, ...]]:
    """The job, or a chain of it and the job behind which a later run waits: one of them ended well."""
    if options.dependent_jobs == 0:
        return (job,), ()
    names = [f"{job.name}-{index}" for index in range(options.dependent_jobs + 1)]
    links = tuple(
        replace(
            job, name=name, edges=tuple(Edge(upstream=before, kind=EdgeKind.UNFINISHED) for before in names[:index])
        )
        for index, name in enumerate(names)
    )
    last = Job(
        name=f"{job.name}-{GATE}",
        stage=GATE,
        command=Command(argv=("true",), container=job.command.container),
        resources=resources(options, cluster, num_gpus=0, aside=True),
        log_dir=job.log_dir,
        edges=gate(links),
    )
    return (*links, last), (Stage(name=GATE, output=None, upstream=(STAGE,)),)
