"""What runs beside the commands of a job, and whether it can run there."""

from __future__ import annotations

import shutil

from skills_pipe.pipeline.checks.finding import Finding, error
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime
from skills_pipe.pipeline.commands.servers import SANDBOX, SERVER, Hosted, HostOptions, sandbox_member, server_member
from skills_pipe.pipeline.plan import Member, Plan


def beside_members(options: HostOptions, hosted: Hosted | None) -> tuple[Member, ...]:
    """The server and the sandbox, as far as they are asked for."""
    servers = (server_member(hosted),) if hosted else ()
    return (*servers, sandbox_member(options)) if options.with_sandbox else servers


def check_programs(plan: Plan, cluster: ClusterConfig) -> list[Finding]:
    """Findings on members that cannot run where there are no containers."""
    if cluster.container_runtime is not ContainerRuntime.NONE:
        return []
    members = {member.name: member for job in plan.jobs for member in job.beside}
    findings = []
    if SANDBOX in members:
        fix = "use a cluster with containers"
        findings.append(error("a sandbox needs a container, to keep its code in", where="--with_sandbox", fix=fix))
    if cluster.is_local and SERVER in members:
        program = _program(members[SERVER])
        if shutil.which(program) is None:
            fix = "install it, or use a cluster whose container has it"
            findings.append(error(f"there is no program {program} on this machine", where="--server_type", fix=fix))
    return findings


def _program(server: Member) -> str:
    """The first word of its command behind ``bash -c SCRIPT NAME``."""
    return server.command.argv[4]
