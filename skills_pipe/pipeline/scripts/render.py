"""Words and values as shell: the one place where a command becomes text.

Values reach a script only as quoted words; secrets do not reach it at all.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from skills_pipe.artifacts.names import ENV_IDENTITY, ENV_PROGRESS, ENV_SAVE_NOW, ENV_VERDICT, ENV_WARNINGS
from skills_pipe.errors import PlanError
from skills_pipe.pipeline.plan import Command, EdgeKind, Job, Launch, Plan


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a script must know about the place where it runs.

    Attributes:
        run_name: for people, ``my-exp/run-3``.
        run_dir: the run folder as the command sees it: its own path, or ``/nemo_run`` in a container.
        env: variables of the cluster configuration that are no secrets.
        working_dir: where commands start that name no folder of their own.
        python_bin: folder put first in PATH, so that ``python`` is the interpreter of ``ns``; None inside images.
        run_number: 3 for ``my-exp/run-3``.
    """

    run_name: str
    run_dir: str
    working_dir: str
    env: tuple[tuple[str, str], ...] = ()
    python_bin: str | None = None
    run_number: int = 1


def job_environment(job: Job, place: Surroundings) -> tuple[tuple[str, str], ...]:
    """Variables for the command of a job; later ones win: those of the job over those of the cluster."""
    run = place.run_dir
    variables = {"PYTHONUNBUFFERED": "1"} | dict(place.env) | dict(job.command.env)
    variables[ENV_IDENTITY] = f"{run}/identities/{job.stage}.json"
    variables[ENV_PROGRESS] = f"{run}/progress/{job.name}.json"
    variables[ENV_WARNINGS] = f"{run}/warnings/{job.name}.json"
    if job.segment is not None:
        variables[ENV_VERDICT] = f"{run}/verdicts/{job.name}.json"
        variables[ENV_SAVE_NOW] = f"{run}/save-now/{job.name}"
    return tuple(variables.items())


def local_argv(job: Job) -> tuple[str, ...]:
    """Tokens that start a job's command here: one process, or torchrun for several."""
    processes = job.members[0].tasks_per_node if job.command.launch is Launch.PER_GPU else 1
    if processes <= 1:
        return job.command.argv
    return (
        *("python", "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"),
        *torchrun_target(job.command),
    )


def threads_per_process(plan: Plan, job: Job, *, cores: int) -> int | None:
    """Cores for each process of ``job`` when all jobs that may run beside it do; None when it has them all."""
    working = [other for other in plan.jobs if other.command.launch is not Launch.BATCH]
    beside = 1 + sum(1 for other in working if other.name not in related(plan, job.name))
    processes = sum(member.tasks_per_node for member in job.members)
    sharers = min(cores, beside) * processes
    return None if sharers == 1 else max(1, cores // sharers)


def related(plan: Plan, name: str) -> set[str]:
    """``name``, all jobs that it waits for, and all that wait for it."""
    upstream = {job.name: {edge.upstream for edge in job.edges} for job in plan.jobs}
    found = {name} | downstream(plan, {name})
    frontier = {name}
    while frontier:
        frontier = {before for after in frontier for before in upstream[after]} - found
        found |= frontier
    return found


def downstream(plan: Plan, names: Iterable[str]) -> set[str]:
    """All jobs that cannot run without ``names``, directly or through others."""
    reached = set(names)
    found: set[str] = set()
    for job in plan.jobs:
        if any(edge.upstream in reached and edge.kind is not EdgeKind.ENDED for edge in job.edges):
            reached.add(job.name)
            found.add(job.name)
    return found


def export_lines(variables: Iterable[tuple[str, str]]) -> list[str]:
    """``export NAME=value`` for each variable, quoted."""
    return [f"export {_name(name)}={quote(value)}" for name, value in variables]


def quote(text: str) -> str:
    """``text`` as one word of shell."""
    if "\0" in text:
        raise PlanError(f"{text!r} holds a zero byte, which no command can take")
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        raise PlanError(f"{text!r} is not UTF-8, and cannot stand in a script", fix="pass it in a file")
    return shlex.quote(text)


def join(argv: Iterable[str]) -> str:
    """``argv`` as a line of shell that splits into the same tokens."""
    return " ".join(quote(token) for token in argv)


def torchrun_target(command: Command) -> tuple[str, ...]:
    """What torchrun is told to start: it takes a script, or a module after ``-m``, or any program."""
    if command.argv[:1] == ("python",):
        return command.argv[1:]
    return ("--no-python", *command.argv)


def _name(name: str) -> str:
    if not name.isidentifier() or not name.isascii():
        raise PlanError(f"{name!r} is no name for an environment variable", fix="use letters, digits and _ only")
    return name
