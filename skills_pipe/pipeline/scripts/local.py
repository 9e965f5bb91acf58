"""Job -> the script that runs it as processes of this machine."""

from __future__ import annotations

from skills_pipe.pipeline.plan import Job, Launch, Member
from skills_pipe.pipeline.records.members import NOTE
from skills_pipe.pipeline.scripts.gpus import gpu_share
from skills_pipe.pipeline.scripts.render import Surroundings, export_lines, job_environment, join, local_argv, quote
from skills_pipe.pipeline.scripts.supervise import Part, Watch, supervise


def render_local(job: Job, place: Surroundings, *, threads: int | None = None) -> str:
    """Script of a job that runs on this machine: it becomes the command, or watches over several.

    Args:
        threads: cores for each of its processes, when it shares them with other jobs; a value that is set wins.
    """
    parts = _parts(job, place, _settings(place, threads))
    alone = len(parts) == 1
    lines = ["#!/bin/bash", f"# Job {job.name} of run {place.run_name}."]
    lines.append("set -euo pipefail" if alone else "set -uo pipefail")
    if alone:
        lines += parts[0].lines
    else:
        watch = Watch(note=NOTE)
        lines += [f"run={quote(place.run_dir)}", f"job={quote(job.name)}", *supervise(parts, watch), 'exit "$code"']
    return "\n".join(lines) + "\n"


def member_log(member: str, job: str, log_dir: str, number: int) -> str:
    """Log of a command of a job of run ``number``; on Slurm it is ``{member}_{job}_{job id}_srun.log``."""
    return f"{log_dir}/{member}_{job}_local-{number}.log"


def _settings(place: Surroundings, threads: int | None) -> list[str]:
    """Lines behind the variables of a command, which they go on from."""
    lines = [f'export PATH={quote(place.python_bin)}:"$PATH"'] if place.python_bin else []
    if threads is not None:
        lines.append(f'export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{threads}}}"')
    return lines


def _parts(job: Job, place: Surroundings, settings: list[str]) -> list[Part]:
    """One for each member; one for each process of those that start several on a node."""
    parts = []
    for index, member in enumerate(job.members):
        lines = _lines(job, index, place, settings)
        tasks = member.command.num_tasks if member.command.launch is Launch.PER_NODE else 1
        for task in range(tasks):
            rank = [] if tasks == 1 else export_lines(_task_variables(task, tasks))
            name = member.name if tasks == 1 else f"{member.name} (task {task})"
            parts.append(Part(name=name, lines=(*rank, *lines), member=member))
    return parts


def _task_variables(task: int, tasks: int) -> tuple[tuple[str, str], ...]:
    """What srun tells each of several processes on one node."""
    return (("SLURM_PROCID", str(task)), ("SLURM_LOCALID", str(task)), ("SLURM_NTASKS", str(tasks)))


def _lines(job: Job, index: int, place: Surroundings, settings: list[str]) -> tuple[str, ...]:
    member = job.members[index]
    command = member.command
    main = index == 0
    argv = local_argv(job) if main else command.argv
    variables = job_environment(job, place) if main else _variables(member, place)
    lines = [] if main and not job.beside else ["set -e"]
    lines += [*export_lines(variables), *settings]
    if job.resources.num_gpus and not member.num_gpus:
        lines.append("export CUDA_VISIBLE_DEVICES=")
    lines.append(f"cd {quote(command.working_dir or place.working_dir)}")
    if command.installation_command:
        lines.append(command.installation_command)
    log = "" if main else f" >> {quote(member_log(member.name, job.name, job.log_dir, place.run_number))} 2>&1"
    lines.append(f"exec {join((*gpu_share(job, index), *argv))}{log}")
    return tuple(lines)


def _variables(member: Member, place: Surroundings) -> tuple[tuple[str, str], ...]:
    return tuple(({"PYTHONUNBUFFERED": "1"} | dict(place.env) | dict(member.command.env)).items())
