"""One command of a job as one step of Slurm: the words for srun, with the flags of its container."""

from __future__ import annotations

from skills_pipe.artifacts.names import ENV_PROGRESS
from skills_pipe.pipeline.cluster.environment import public_environment
from skills_pipe.pipeline.cluster.paths import RUN_DIR
from skills_pipe.pipeline.plan import Job, Launch, Mount
from skills_pipe.pipeline.scripts.containers import ContainerSpec, srun_flags
from skills_pipe.pipeline.scripts.setting import CODE_INSIDE, Setting, code_dir, log_paths


def srun_argv(setting: Setting) -> tuple[str, ...]:
    """The words that start the main command of a job on its nodes."""
    job = setting.job
    _, step_log = log_paths(setting)
    tasks = setting.tasks_per_node
    nodes = job.resources.num_nodes if job.command.launch is Launch.PER_GPU else 1
    return (
        "srun",
        "--export=ALL",
        f"--nodes={nodes}",
        f"--ntasks={nodes * tasks}",
        f"--ntasks-per-node={tasks}",
        # Ranks of a training job end one by one with 75: the first must not take the others along, the verdict's
        # writer among them. After a crash the rest is given a minute.
        f"--kill-on-bad-exit={0 if job.segment else 1}",
        "--wait=60",
        f"--output={step_log}",
        "--open-mode=append",
        *_container_flags(setting),
        *installed(job),
    )


def _container_flags(setting: Setting) -> tuple[str, ...]:
    command, cluster, run = setting.job.command, setting.cluster, setting.run
    if not setting.contained:
        spec = ContainerSpec(image="", mounts=(), working_dir=command.working_dir or str(code_dir()))
        return srun_flags(cluster.container_runtime, spec)
    own = (
        Mount(source=run.at, target=RUN_DIR),
        Mount(source=str(code_dir() / "skills_pipe"), target=f"{CODE_INSIDE}/skills_pipe", read_only=True),
    )
    spec = ContainerSpec(
        image=cluster.containers.get(command.container, command.container),
        mounts=(*setting.plan.mounts, *own),
        working_dir=command.working_dir or CODE_INSIDE,
        pass_env=tuple({**public_environment(cluster), **dict(command.env)}),
    )
    return srun_flags(cluster.container_runtime, spec)


def installed(job: Job) -> tuple[str, ...]:
    """The command, after the installation that the first task of each node does for all of its tasks."""
    text = job.command.installation_command
    if not text:
        return job.command.argv
    script = (
        # In the folder of the run: one in /tmp would meet that of another cluster's, or an older, job of this id.
        f'mark="${ENV_PROGRESS}.installed-$SLURM_JOB_ID-$SLURM_STEP_ID-$SLURM_NODEID-${{SLURM_RESTART_COUNT:-0}}"; '
        'if [ "$SLURM_LOCALID" = 0 ]; then '
        '( eval "$0" ) && echo ok > "$mark" || echo failed > "$mark"; fi; '
        'until [ -s "$mark" ]; do sleep 0.2; done; '
        'if [ "$(cat "$mark")" != ok ]; then echo "the installation command failed" >&2; exit 1; fi; '
        'exec "$@"'
    )
    return ("bash", "-c", script, text, *job.command.argv)
