"""``ns start_server``: a model server as a job of its own, until it is cancelled or its time is over."""

from __future__ import annotations

from dataclasses import dataclass, replace

from skills_pipe.artifacts.names import ENV_SERVER_ADDRESS
from skills_pipe.pipeline.checks.finding import Finding
from skills_pipe.pipeline.checks.request import Request
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands.beside import beside_members, check_programs
from skills_pipe.pipeline.commands.log_folder import log_folder
from skills_pipe.pipeline.commands.servers import Hosted, HostOptions, ServerType
from skills_pipe.pipeline.console.command import Command as LauncherCommand
from skills_pipe.pipeline.launch import launch
from skills_pipe.pipeline.options.declaration import option
from skills_pipe.pipeline.options.groups import EXPNAME_HELP, JobOptions, resources
from skills_pipe.pipeline.plan import Command, Job, Plan, Stage

STAGE = "server"

# The job is the one who tells where the server is, and goes on as long as it does.
_WAIT = f'echo "$0 is served at ${ENV_SERVER_ADDRESS}/v1"; exec sleep infinity'


@dataclass(frozen=True, kw_only=True)
class StartServerOptions(HostOptions, JobOptions):
    """Server."""

    model: str = option(metavar="PATH|ID", help="model to serve")
    server_type: ServerType = option(
        metavar="TYPE", help="what serves it: vllm, sglang, trtllm, megatron, or generic, a program of yours"
    )
    expname: str = option("server", help=EXPNAME_HELP)


def plan(options: StartServerOptions, extras: tuple[str, ...], cluster: ClusterConfig) -> Plan:
    """One job, which never ends by itself."""
    model = cluster.absolute_or_id(options.model)
    hosted = Hosted(model=model, server_type=options.server_type, options=options, working_dir=cluster.working_dir)
    job = Job(
        name=options.expname,
        stage=STAGE,
        command=Command(argv=("bash", "-c", _WAIT, model), working_dir=cluster.working_dir, secrets=()),
        resources=resources(options, cluster, num_gpus=hosted.gpus, num_nodes=hosted.nodes),
        log_dir=log_folder(options.log_dir, options.expname, cluster),
        # Those who ask are on other nodes.
        beside=tuple(replace(member, public=True) for member in beside_members(options, hosted)),
        main_gpus=0,
    )
    return Plan(
        expname=options.expname,
        command="start_server",
        stages=(Stage(name=STAGE, output=None, inputs=(model,)),),
        jobs=(job,),
        mounts=cluster.mounts,
        run_after=options.run_after,
    )


def check(request: Request[StartServerOptions]) -> list[Finding]:
    """Whether the server can run there."""
    return check_programs(request.plan, request.cluster)


COMMAND = LauncherCommand(options=StartServerOptions, run=launch(plan, checks={"server": check}))
