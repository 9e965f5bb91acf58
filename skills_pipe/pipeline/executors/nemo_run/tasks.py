"""Jobs of a plan -> tasks of nemo-run: the executor of each with all its keywords, as plain values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.executors.nemo_run.target import Settings
from skills_pipe.pipeline.plan import Launch, Mount, Plan
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.scripts.nemo_run import batch_lines, own_mounts
from skills_pipe.pipeline.scripts.setting import Setting, log_patterns


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of an experiment of nemo-run: ``bash SCRIPT`` on an executor.

    Attributes:
        name: name of the job.
        executor: module and class of the executor, below ``nemo_run.core.execution``.
        script: path of the script, as the task sees it.
        options: keywords of the executor.
        after: tasks that must have ended well.
    """

    name: str
    executor: str
    script: str
    options: Mapping[str, Any]
    after: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain value for the process that calls nemo-run."""
        return {
            "name": self.name,
            "executor": self.executor,
            "script": self.script,
            "options": dict(self.options),
            "after": list(self.after),
        }


def tasks(plan: Plan, cluster: ClusterConfig, run: Run, code: str, after: tuple[str, ...] = ()) -> tuple[Task, ...]:
    """One task for each job, in the order of the plan.

    Args:
        code: folder of the cluster with the code of the jobs.
        after: ids of Slurm jobs that must end well first: those that wait for no job of the plan wait for them.
    """
    settings = Settings.of(cluster)
    settings_of = (Setting(job=job, plan=plan, cluster=cluster, run=run, code=code) for job in plan.jobs)
    return tuple(_task(setting, settings, after) for setting in settings_of)


def _task(setting: Setting, settings: Settings, after: tuple[str, ...]) -> Task:
    job, target = setting.job, settings.target
    options = _placement(setting, settings)
    if target.queued:
        options |= _queue(setting, after)
    return Task(
        name=job.name,
        executor=target.path,
        script=f"{setting.run.at}/scripts/{job.name}.sh",
        options={**options, **settings.options},
        # Of a gate with one alternative that is exact; others are refused.
        after=tuple(edge.upstream for edge in job.edges) if target.queued else (),
    )


def _placement(setting: Setting, settings: Settings) -> dict[str, Any]:
    """Image, mounts and GPUs, under the names of the executor."""
    job, target = setting.job, settings.target
    found: dict[str, Any] = {}
    if target.image and setting.contained:
        found[target.image] = setting.cluster.containers.get(job.command.container, job.command.container)
        if target.mounts:
            found[target.mounts] = [_mount(mount) for mount in own_mounts(setting)]
    if target.gpus and job.resources.num_gpus and not (target.queued and setting.cluster.disable_gpus_per_node):
        found[target.gpus] = job.resources.num_gpus
    return found


def _queue(setting: Setting, after: tuple[str, ...]) -> dict[str, Any]:
    """What only Slurm knows: its header, the flags of its step, and lines before the step."""
    cluster, resources = setting.cluster, setting.job.resources
    return {
        "account": cluster.account,
        "partition": resources.partition,
        "qos": resources.qos,
        # nemo-run has a limit of ten minutes of its own: None leaves it to the partition.
        "time": resources.time_limit,
        "nodes": resources.num_nodes,
        "ntasks_per_node": setting.tasks_per_node,
        "exclusive": True if resources.exclusive else None,
        # Without a prefix nemo-run makes one of the account, which may not be set; the name itself is given below.
        "job_name_prefix": f"{setting.plan.expname}.",
        "dependency_type": "afterok",
        "poll_estimated_start_time": False,
        "additional_parameters": _header(setting, after),
        "srun_args": _step_flags(setting),
        "setup_lines": "\n".join(batch_lines(setting)),
    }


def _header(setting: Setting, after: tuple[str, ...]) -> dict[str, Any]:
    """Keys of sbatch that nemo-run has no field for, or fills otherwise; those of the configuration win."""
    job, cluster = setting.job, setting.cluster
    batch_log, _ = log_patterns(setting)
    mail = {"mail_type": cluster.mail_type, "mail_user": cluster.mail_user} if cluster.mail_user else {}
    keys: dict[str, Any] = {
        "job_name": f"{cluster.job_name_prefix}{job.name}",
        "time_min": job.resources.time_min,
        "output": batch_log,
        # All of an environment in which there is next to nothing.
        "export": "ALL",
        # All jobs are accepted and recorded before the first one starts.
        "hold": True,
        # nemo-run names the jobs of the plan on the command line of sbatch, which would win.
        "dependency": ",".join(f"afterok:{job_id}" for job_id in after) if after and not job.edges else None,
        # What can never start is cancelled, in place of waiting for ever.
        "kill_on_invalid_dep": "yes" if cluster.kill_on_invalid_dep else None,
        **mail,
        **{key.replace("-", "_"): value or True for key, value in cluster.sbatch.items()},
    }
    return {key: value for key, value in keys.items() if value is not None}


def _step_flags(setting: Setting) -> list[str]:
    """Flags of srun; of those that nemo-run gives too, the last one wins."""
    job, tasks_per_node = setting.job, setting.tasks_per_node
    nodes = job.resources.num_nodes if job.command.launch is Launch.PER_GPU else 1
    _, step_log = log_patterns(setting)
    return [
        "--export=ALL",
        f"--nodes={nodes}",
        f"--ntasks={nodes * tasks_per_node}",
        f"--ntasks-per-node={tasks_per_node}",
        f"--kill-on-bad-exit={0 if job.segment else 1}",
        f"--output={step_log}",
        "--open-mode=append",
        *(_container_flags(setting) if setting.contained else []),
    ]


def _container_flags(setting: Setting) -> list[str]:
    """What nemo-run leaves open: the home of the user stays outside, and an installation needs a root to write to."""
    writable = setting.job.command.installation_command is not None
    return ["--no-container-mount-home", *(["--container-writable"] if writable else [])]


def _mount(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}" + (":ro" if mount.read_only else "")
