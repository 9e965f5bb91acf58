"""Model servers that run in the job of those who ask them: options, and the member of a job that they become."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from skills_pipe.artifacts.names import ENV_JOIN_PORT, ENV_SANDBOX_PORT, ENV_SERVER_PORT
from skills_pipe.errors import OptionError
from skills_pipe.pipeline.options.declaration import option, switch
from skills_pipe.pipeline.plan import Command, Launch, Member

SERVER = "server"
"""Name of the member; its log is ``server_JOB_...``."""
SANDBOX = "sandbox"
"""Name of the member, and of its container."""
GENERIC_CONTAINER = "nemo-skills"
"""Container of a server that is a program of the user's."""


class ServerType(str, Enum):
    """What generates the answers."""

    HF = "hf"
    """Transformers, in the process of the evaluation itself."""
    VLLM = "vllm"
    SGLANG = "sglang"
    TRTLLM = "trtllm"
    MEGATRON = "megatron"
    GENERIC = "generic"
    """A program of the user's."""
    OPENAI = "openai"
    """A service elsewhere."""


@dataclass(frozen=True, kw_only=True)
class HostOptions:
    """Model server."""

    server_gpus: int | None = option(
        None, help="GPUs on each node of the server that runs in each job; 0 for one on CPU cores"
    )
    server_nodes: int = option(1, help="nodes that one server runs on")
    server_args: str = option("", metavar="WORDS", help="further words for the program of the server, as for a shell")
    server_entrypoint: str | None = option(
        None,
        metavar="PROGRAM",
        help="program to start in place of the server's own; it is given --model, --num_gpus, --num_nodes and --port",
    )
    server_container: str | None = option(
        None, metavar="NAME", help="container of the server; by default the one that is called as its type"
    )
    server_wait_timeout: int = option(3600, help="seconds that a server may take until it answers")
    with_sandbox: bool = switch(help="run a sandbox for code in the job too, in the container called sandbox")
    keep_mounts_for_sandbox: bool = switch(help="let the sandbox see the mounts; without it, it sees none of them")
    get_random_port: bool = switch(help="accepted for NeMo-Skills: ports are always chosen in the job, free ones")


@dataclass(frozen=True, kw_only=True)
class Hosted:
    """A server to be started: a model, served by a program of some type, which starts in ``working_dir``."""

    model: str
    server_type: ServerType
    options: HostOptions
    working_dir: str | None = None

    @property
    def gpus(self) -> int:
        """GPUs on each of its nodes."""
        return self.options.server_gpus or 0

    @property
    def nodes(self) -> int:
        """Nodes that it runs on."""
        return self.options.server_nodes

    @property
    def own_words(self) -> list[str]:
        """What the user adds to its command."""
        return split_words(self.options.server_args, where="--server_args")


def server_member(hosted: Hosted) -> Member:
    """The server as a member of a job. Its address is in the variables ``SKILLS_PIPE_SERVER_ADDRESS``, ``_HOST`` and
    ``_PORT`` of all commands of the job.

    Raises:
        OptionError: there is no way to start such a server.
    """
    _check(hosted)
    options, kind = hosted.options, hosted.server_type
    own = options.server_entrypoint is not None and kind is not ServerType.MEGATRON
    make = _entrypoint if own else _COMMANDS[kind]
    container = options.server_container or (GENERIC_CONTAINER if kind is ServerType.GENERIC else kind.value)
    joined = hosted.nodes > 1
    return Member(
        name=SERVER,
        command=replace(make(hosted, container), working_dir=hosted.working_dir),
        num_nodes=hosted.nodes,
        num_gpus=hosted.gpus,
        service=True,
        ports=(ENV_SERVER_PORT, ENV_JOIN_PORT) if joined else (ENV_SERVER_PORT,),
        # All that is known of a program of the user's is the protocol that it speaks.
        ready="/v1/models" if own else "/health",
        ready_seconds=options.server_wait_timeout,
    )


def sandbox_member(options: HostOptions) -> Member:
    """The sandbox as a member of a job: without secrets, and without mounts unless they are asked for. It listens at
    ``NEMO_SKILLS_SANDBOX_HOST`` and ``_PORT``."""
    script = f'export LISTEN_PORT="${ENV_SANDBOX_PORT}" NGINX_PORT="${ENV_SANDBOX_PORT}"; exec /start-with-nginx.sh'
    return Member(
        name=SANDBOX,
        command=Command(
            argv=("bash", "-c", script), container=SANDBOX, secrets=(), mounts=options.keep_mounts_for_sandbox
        ),
        service=True,
        ports=(ENV_SANDBOX_PORT,),
        ready="/health",
        ready_seconds=options.server_wait_timeout,
    )


def split_words(text: str, *, where: str) -> list[str]:
    """Words of a text, as a shell would split it."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise OptionError(
            f"{text!r} cannot be split into words ({error})", where=where, fix="close its quotes"
        ) from error


def _check(hosted: Hosted) -> None:
    options, kind = hosted.options, hosted.server_type
    if kind in (ServerType.HF, ServerType.OPENAI):
        raise OptionError(
            f"a server of type {kind.value} cannot be started",
            where="--server_type",
            fix="choose one of " + ", ".join(known.value for known in _COMMANDS),
        )
    for name, least in (("server_gpus", 0), ("server_nodes", 1), ("server_wait_timeout", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise OptionError(f"--{name} is {value}", fix=f"set it to {least} or more")
    if kind in (ServerType.GENERIC, ServerType.MEGATRON) and not options.server_entrypoint:
        what = (
            "the program" if kind is ServerType.GENERIC else "Megatron-LM's tools/run_dynamic_text_generation_server.py"
        )
        raise OptionError(
            f"server type {kind.value} needs --server_entrypoint", fix=f"name {what}, as the container has it"
        )
    if kind is not ServerType.GENERIC and not options.server_entrypoint and hosted.gpus == 0:
        fix = "say how many on each node, or name one that runs elsewhere with --server_address"
        raise OptionError(f"a {kind.value} server in the job needs GPUs", where="--server_gpus", fix=fix)


def _vllm(hosted: Hosted, container: str) -> Command:
    """``vllm serve``; over nodes its own multiprocessing, a pipeline of as many stages as there are nodes."""
    words = ["vllm", "serve", hosted.model, "--host", "0.0.0.0", "--served-model-name", hosted.model]
    words += _unless_said(hosted, ("--tensor-parallel-size", "-tp"), hosted.gpus)
    if hosted.nodes == 1:
        return _with_port(words + hosted.own_words, container)
    words += _unless_said(hosted, ("--pipeline-parallel-size", "-pp"), hosted.nodes)
    words += ["--distributed-executor-backend", "mp", "--nnodes", str(hosted.nodes)]
    join = (
        f'set -- "$@" --node-rank "$SLURM_NODEID" --master-addr "${_HOST}" --master-port "${ENV_JOIN_PORT}"; '
        'if [ "$SLURM_NODEID" != 0 ]; then set -- "$@" --headless; fi; '
    )
    return _with_port(words + hosted.own_words, container, before=join, launch=Launch.PER_NODE)


def _sglang(hosted: Hosted, container: str) -> Command:
    """``sglang.launch_server``, one process on each node."""
    words = ["python", "-m", "sglang.launch_server", "--model-path", hosted.model, "--host", "0.0.0.0"]
    words += ["--served-model-name", hosted.model]
    words += _unless_said(hosted, ("--tp", "--tp-size", "--tensor-parallel-size"), hosted.gpus * hosted.nodes)
    if hosted.nodes == 1:
        return _with_port(words + hosted.own_words, container)
    words += ["--nnodes", str(hosted.nodes)]
    join = f'set -- "$@" --node-rank "$SLURM_NODEID" --dist-init-addr "${_HOST}:${ENV_JOIN_PORT}"; '
    return _with_port(words + hosted.own_words, container, before=join, launch=Launch.PER_NODE)


def _trtllm(hosted: Hosted, container: str) -> Command:
    """``trtllm-serve``; over nodes one MPI rank for each GPU, started by srun."""
    words = ["trtllm-serve", hosted.model, "--host", "0.0.0.0"]
    words += _unless_said(hosted, ("--tp_size",), hosted.gpus * hosted.nodes) + hosted.own_words
    if hosted.nodes == 1:
        return _with_port(words, container)
    command = _with_port(["trtllm-llmapi-launch", *words], container, launch=Launch.PER_GPU)
    return replace(command, env=(("SLURM_MPI_TYPE", "pmix"),))


def _megatron(hosted: Hosted, container: str) -> Command:
    """Megatron-LM's server of dynamic batches, one torchrun on each node."""
    words = ["python", "-m", "torch.distributed.run", f"--nproc-per-node={hosted.gpus}"]
    join = ""
    if hosted.nodes > 1:
        words.append(f"--nnodes={hosted.nodes}")
        join = 'set -- "${@:1:5}" --node-rank="$SLURM_NODEID" '
        join += f'--master-addr="${_HOST}" --master-port="${ENV_JOIN_PORT}" "${{@:6}}"; '
    words += split_words(hosted.options.server_entrypoint or "", where="--server_entrypoint")
    words += ["--load", hosted.model, "--host", "0.0.0.0"]
    words += _unless_said(hosted, ("--tensor-model-parallel-size",), hosted.gpus)
    if hosted.nodes > 1:
        words += _unless_said(hosted, ("--pipeline-model-parallel-size",), hosted.nodes)
    launch = Launch.PER_NODE if hosted.nodes > 1 else Launch.ONCE
    return _with_port(words + hosted.own_words, container, before=join, launch=launch)


def _entrypoint(hosted: Hosted, container: str) -> Command:
    """The user's program, with the flags that programs of NeMo-Skills take. Several nodes are its own business: it runs
    on the first one, where SLURM_JOB_NODELIST names them."""
    words = split_words(hosted.options.server_entrypoint or "", where="--server_entrypoint")
    if words[0] == "-m" or words[0].endswith(".py"):
        words = ["python", *words]
    words += ["--model", hosted.model, "--num_gpus", str(hosted.gpus), "--num_nodes", str(hosted.nodes)]
    return _with_port(words + hosted.own_words, container)


_HOST = ENV_SERVER_PORT.removesuffix("_PORT") + "_HOST"

_COMMANDS: dict[ServerType, Callable[[Hosted, str], Command]] = {
    ServerType.VLLM: _vllm,
    ServerType.SGLANG: _sglang,
    ServerType.TRTLLM: _trtllm,
    ServerType.MEGATRON: _megatron,
    ServerType.GENERIC: _entrypoint,
}


def _with_port(words: Sequence[str], container: str, *, before: str = "", launch: Launch = Launch.ONCE) -> Command:
    """A command that ends with the port, which is known in the job only."""
    script = f'{before}exec "$@" --port "${ENV_SERVER_PORT}"'
    return Command(argv=("bash", "-c", script, SERVER, *words), container=container, launch=launch)


def _unless_said(hosted: Hosted, flags: tuple[str, ...], value: int) -> list[str]:
    """A flag with our value, unless the user gives it in one of its spellings."""
    said = {word.partition("=")[0] for word in hosted.own_words}
    return [] if said & set(flags) else [flags[0], str(value)]
