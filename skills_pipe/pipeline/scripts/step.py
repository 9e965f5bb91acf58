"""One command of a job as one step of Slurm: a subshell with its secrets, its variables and its container."""

from __future__ import annotations

from skills_pipe.artifacts.names import ENV_PROGRESS
from skills_pipe.pipeline.cluster.paths import RUN_DIR
from skills_pipe.pipeline.plan import Command, Job, Launch, Mount
from skills_pipe.pipeline.scripts.containers import Contained, ContainerSpec, contain, shares_root
from skills_pipe.pipeline.scripts.environment import secret_lines, variable_lines, variables
from skills_pipe.pipeline.scripts.notify import WEBHOOK
from skills_pipe.pipeline.scripts.render import join, quote
from skills_pipe.pipeline.scripts.setting import CODE_INSIDE, SECRETS, Component, Setting, log_patterns


def main_component(setting: Setting) -> Component:
    """The main command of a job, alone in it."""
    job = setting.job
    return Component(
        name="main",
        command=job.command,
        num_nodes=1 if job.command.launch is Launch.ONCE else job.resources.num_nodes,
        tasks_per_node=setting.tasks_per_node,
        num_gpus=job.resources.num_gpus,
        main=True,
    )


def component_lines(setting: Setting, component: Component) -> list[str]:
    """Lines of a subshell that becomes the step of a component: behind its last line, ``)``, stands ``&``.

    What it exports stays in it: the batch shell and the other components see neither its secrets nor its variables.
    """
    lines = [*secret_lines(component.command), *variable_lines(setting, component)]
    return ["(", *(f"  {line}" for line in lines), f"  exec {join(srun_argv(setting, component))}", ")"]


def srun_argv(setting: Setting, component: Component) -> tuple[str, ...]:
    """The words that start a component on its nodes."""
    job, tasks = setting.job, component.tasks_per_node
    contained = _contained(setting, component)
    return (
        "srun",
        "--export=ALL",
        f"--nodes={component.num_nodes}",
        f"--ntasks={component.num_nodes * tasks}",
        f"--ntasks-per-node={tasks}",
        *_shares(setting, component),
        # Ranks of a training job end one by one with 75: the first must not take the others along, the verdict's
        # writer among them. After a crash the rest is given a minute.
        f"--kill-on-bad-exit={0 if job.segment and component.main else 1}",
        "--wait=60",
        f"--output={log_patterns(setting, component.name)[1]}",
        "--open-mode=append",
        *contained.srun_flags,
        *contained.prefix,
        *_installed(setting, component),
    )


def installed(job: Job) -> tuple[str, ...]:
    """The command of a job, after the installation that the first task of each node does for all of its tasks."""
    return _installed_once(job.command, f"${ENV_PROGRESS}")


def _shares(setting: Setting, component: Component) -> tuple[str, ...]:
    """Flags of a step that does not have the whole job to itself."""
    if not component.overlap:
        return ()
    # Ports are free on the first node: what listens there must run there.
    flags = ["--overlap", f"--job-name={component.name}"]
    if setting.job.resources.num_nodes > 1:
        flags.append("--relative=0")
    total = setting.job.resources.num_gpus
    if total and not setting.cluster.disable_gpus_per_node:
        # All or none: of some, steps that overlap get the same ones.
        flags.append(f"--gpus-per-node={total}" if component.num_gpus else "--gres=none")
    return tuple(flags)


def _contained(setting: Setting, component: Component) -> Contained:
    command, cluster = component.command, setting.cluster
    if not setting.contained:
        return contain(
            cluster.container_runtime, ContainerSpec(image="", working_dir=command.working_dir or setting.code)
        )
    own = (
        Mount(source=setting.run.at, target=RUN_DIR),
        # Secrets come as variables, to those who may have them.
        Mount(source="/dev/null", target=f"{RUN_DIR}/{SECRETS}", read_only=True),
        Mount(source=setting.code, target=CODE_INSIDE, read_only=True),
        *([Mount(source="/dev/null", target=f"{RUN_DIR}/{WEBHOOK}", read_only=True)] if cluster.notify else []),
    )
    return contain(
        cluster.container_runtime,
        ContainerSpec(
            image=cluster.containers.get(command.container, command.container),
            mounts=(*setting.plan.mounts, *own) if command.mounts else (),
            working_dir=command.working_dir or (CODE_INSIDE if command.mounts else None),
            pass_env=_names(setting, component),
            gpus=component.num_gpus > 0,
            writable=command.installation_command is not None,
        ),
    )


def _names(setting: Setting, component: Component) -> tuple[str, ...]:
    """Variables of a command whose value in the job wins over that in its image."""
    paths = ("PYTHONPATH",) if component.command.mounts else ()
    return tuple(dict.fromkeys((*variables(setting, component), *component.inherits, *paths)))


def _installed(setting: Setting, component: Component) -> tuple[str, ...]:
    """The command, after its installation: once on each node where that is enough."""
    command = component.command
    if not command.installation_command:
        return command.argv
    if component.tasks_per_node == 1 or not shares_root(setting.cluster.container_runtime):
        return ("bash", "-c", '( eval "$0" ) || exit 1; exec "$@"', command.installation_command, *command.argv)
    run = RUN_DIR if setting.contained else setting.run.at
    return _installed_once(command, quote(f"{run}/progress/{setting.job.name}.{component.name}"))


def _installed_once(command: Command, mark: str) -> tuple[str, ...]:
    """The command after an installation that one task does for all of its node; the others wait for its mark.

    Args:
        mark: shell text: how the names of the marks begin. They lie in the folder of the run: one in /tmp would meet
            that of another cluster's, or an older, job of this id.
    """
    if not command.installation_command:
        return command.argv
    script = (
        f'mark={mark}".installed-$SLURM_JOB_ID-$SLURM_STEP_ID-$SLURM_NODEID-${{SLURM_RESTART_COUNT:-0}}"; '
        'if [ "$SLURM_LOCALID" = 0 ]; then '
        '( eval "$0" ) && echo ok > "$mark" || echo failed > "$mark"; fi; '
        'until [ -s "$mark" ]; do sleep 0.2; done; '
        'if [ "$(cat "$mark")" != ok ]; then echo "the installation command failed" >&2; exit 1; fi; '
        'exec "$@"'
    )
    return ("bash", "-c", script, command.installation_command, *command.argv)
