"""How the commands of a job start, are watched and end, as lines of its batch script."""

from __future__ import annotations

from dataclasses import replace

from skills_pipe.pipeline.plan import Job, Launch, Member
from skills_pipe.pipeline.records.members import NOTE
from skills_pipe.pipeline.scripts.environment import variable_lines
from skills_pipe.pipeline.scripts.gpus import gpu_share
from skills_pipe.pipeline.scripts.render import join
from skills_pipe.pipeline.scripts.setting import Component, Setting
from skills_pipe.pipeline.scripts.step import component_lines, main_component
from skills_pipe.pipeline.scripts.supervise import Part, Watch, port_variables, supervise


def run_lines(setting: Setting) -> list[str]:
    """Lines that run all commands of a job, and leave its exit code in ``$code``, and whether a TERM came in
    ``$terminated``."""
    return [
        "export SUBMITIT_EXECUTOR=slurm",
        # Since 22.05 srun takes the cores of a task over from sbatch only by this name.
        'if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi',
        *_commands(setting),
    ]


def _commands(setting: Setting) -> list[str]:
    if setting.job.command.launch is Launch.BATCH:
        return _here(setting)
    return _several(setting) if setting.job.beside else _alone(setting)


def _here(setting: Setting) -> list[str]:
    """A command of the batch script itself; it gets what the variables of its component say, and no secrets."""
    component = main_component(setting)
    return [
        "(",
        *(f"  {line}" for line in variable_lines(setting, component)),
        f"  {join(component.command.argv)}",
        ")",
        "code=$?",
    ]


def _alone(setting: Setting) -> list[str]:
    """The step runs in the background: a trap runs only while bash waits, and a signal to srun would hit its
    children."""
    save_now = 'touch "$run/save-now/$job"; ' if setting.job.segment else ""
    *step, end = component_lines(setting, main_component(setting))
    return [
        "interrupted=",
        f"trap '{save_now}interrupted=1' USR1",
        "terminated=",
        "trap 'interrupted=1; terminated=1; on_term' TERM",
        *step,
        f"{end} &",
        "while :; do",
        "  interrupted=",
        "  wait $!",
        "  code=$?",
        '  if [ -z "$interrupted" ]; then break; fi',
        "done",
    ]


def _several(setting: Setting) -> list[str]:
    job = setting.job
    parts = [
        Part(name=member.name, lines=_step_lines(setting, member, index), member=member)
        for index, member in enumerate(job.members)
    ]
    watch = Watch(
        note=NOTE,
        # Within one node no name has to be found.
        host='"$(hostname)"' if _spread(job) else "127.0.0.1",
        on_term="on_term",
        on_warning='touch "$run/save-now/$job"' if job.segment else "",
        steps=True,
    )
    return supervise(parts, watch)


def _spread(job: Job) -> bool:
    """Whether a member is asked from another node than its own."""
    return job.resources.num_nodes > 1 or any(member.public for member in job.beside)


def _step_lines(setting: Setting, member: Member, index: int) -> tuple[str, ...]:
    command = member.command
    component = Component(
        name=member.name,
        command=replace(command, argv=(*gpu_share(setting.job, index), *command.argv)),
        num_nodes=member.nodes,
        tasks_per_node=member.tasks_per_node,
        num_gpus=member.num_gpus,
        overlap=True,
        main=index == 0,
        inherits=port_variables(setting.job.members),
    )
    _, *lines, _ = component_lines(setting, component)
    # As srun reads it, --gres=none would contradict it.
    return ("unset SLURM_GPUS_PER_NODE", *(line.removeprefix("  ") for line in lines))
