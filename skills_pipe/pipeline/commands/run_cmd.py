"""``ns run_cmd``: run any command as a job, where everything else runs too."""

from __future__ import annotations

from dataclasses import dataclass

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.cluster.paths import PathMap
from skills_pipe.pipeline.console.command import Command as LauncherCommand
from skills_pipe.pipeline.launch import launch
from skills_pipe.pipeline.options.declaration import argument, option
from skills_pipe.pipeline.options.groups import EXPNAME_HELP, JobOptions, resources
from skills_pipe.pipeline.plan import Command, Job, Plan, Stage

STAGE = "command"


@dataclass(frozen=True, kw_only=True)
class RunCmdOptions(JobOptions):
    """Command."""

    argv: tuple[str, ...] = argument(
        (), metavar="COMMAND", verbatim=True, help="program and its arguments, everything from the first word on"
    )
    command: str | None = option(None, metavar="SHELL", help="shell text to run, in place of COMMAND")
    container: str = option("nemo-skills", metavar="NAME", help="name of a container of the configuration, or an image")
    num_gpus: int = option(0, help="GPUs on each node")
    num_nodes: int = option(1, help="nodes of the job")
    expname: str = option("script", help=EXPNAME_HELP)


def plan(options: RunCmdOptions, extras: tuple[str, ...], cluster: ClusterConfig) -> Plan:
    """One job, which always runs: nothing is known of what it makes."""
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
    for name, least in (("num_gpus", 0), ("num_nodes", 1)):
        if getattr(options, name) < least:
            raise OptionError(f"--{name} is {getattr(options, name)}", fix=f"set it to {least} or more")
    job = Job(
        name=options.expname,
        stage=STAGE,
        command=Command(
            argv=options.argv or ("bash", "-c", options.command or ""),
            container=options.container,
            working_dir=cluster.working_dir,
            installation_command=options.installation_command,
        ),
        resources=resources(options, cluster, num_gpus=options.num_gpus, num_nodes=options.num_nodes),
        log_dir=_log_dir(options, cluster),
    )
    return Plan(
        expname=options.expname,
        command="run_cmd",
        stages=(Stage(name=STAGE, output=None),),
        jobs=(job,),
        mounts=cluster.mounts,
        run_after=options.run_after,
    )


COMMAND = LauncherCommand(options=RunCmdOptions, run=launch(plan, shows=lambda job: True))


def _log_dir(options: RunCmdOptions, cluster: ClusterConfig) -> str:
    if options.log_dir:
        return cluster.absolute(options.log_dir)
    # It makes nothing that logs could lie beside: they go to the records of runs.
    folder = PathMap.of(cluster).to_container(f"{cluster.job_dir}/experiments/{options.expname}/logs")
    if folder is None:
        raise OptionError("--log_dir is missing", fix="name a mounted folder for the logs")
    return folder
