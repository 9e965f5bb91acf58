"""Job -> batch script for Slurm.

The script runs on the first node, outside any container. It knows nothing that is known only after sbatch: ids of
other jobs are looked up in ``jobs.tsv`` of the run.
"""

from __future__ import annotations

from skills_pipe.errors import PlanError
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.plan import Job, Plan
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.scripts.chain import chain_epilogue, chain_prologue, save_seconds
from skills_pipe.pipeline.scripts.environment import prologue
from skills_pipe.pipeline.scripts.members import run_lines
from skills_pipe.pipeline.scripts.render import quote
from skills_pipe.pipeline.scripts.sealed import last_lines
from skills_pipe.pipeline.scripts.setting import Setting, log_patterns
from skills_pipe.pipeline.scripts.times import time_lines
from skills_pipe.pipeline.scripts.torchrun import with_launcher


def render_sbatch(job: Job, plan: Plan, cluster: ClusterConfig, run: Run, code: str) -> str:
    """The batch script of a job.

    Args:
        code: folder of the cluster with the code of the jobs.
    """
    job = with_launcher(job, cluster)
    setting = Setting(job=job, plan=plan, cluster=cluster, run=run, code=code)
    parts = [
        ["#!/bin/bash", *_header(setting)],
        [f"# Job {job.name} of run {run}.", *prologue(setting)],
        time_lines(setting),
        chain_prologue(setting) if job.segment else [],
        run_lines(setting),
        chain_epilogue(setting) if job.segment else last_lines(setting),
    ]
    return "\n".join(line for part in parts if part for line in (*part, "")).rstrip("\n") + "\n"


def header_lines(job: Job, plan: Plan, cluster: ClusterConfig, run: Run) -> list[str]:
    """The ``#SBATCH`` lines of that script alone."""
    return _header(Setting(job=with_launcher(job, cluster), plan=plan, cluster=cluster, run=run))


def _header(setting: Setting) -> list[str]:
    job, cluster = setting.job, setting.cluster
    resources = job.resources
    batch_log, _ = log_patterns(setting)
    gpus = resources.num_gpus if resources.num_gpus and not cluster.disable_gpus_per_node else None
    mail = cluster.mail_type if cluster.mail_user else None
    keys: dict[str, object] = {
        "job-name": f"{cluster.job_name_prefix}{job.name}",
        "account": cluster.account,
        "partition": resources.partition,
        "qos": resources.qos,
        "time": resources.time_limit,
        "time-min": resources.time_min,
        "nodes": resources.num_nodes,
        "ntasks-per-node": sum(member.tasks_per_node for member in job.members),
        "gpus-per-node": gpus,
        "exclusive": True if resources.exclusive else None,
        "output": batch_log,
        "open-mode": "append",
        "requeue": True,
        "signal": f"B:USR1@{save_seconds(resources.time_limit)}" if job.segment and resources.time_limit else None,
        "mail-type": mail,
        "mail-user": cluster.mail_user if mail else None,
        **{key.replace("_", "-"): _from_yaml(value) for key, value in cluster.sbatch.items()},
    }
    return [_directive(key, value) for key, value in keys.items() if value is not None and value is not False]


def _from_yaml(text: str) -> object:
    """``true`` is a flag without a value, ``false`` leaves a key out, one of ours too."""
    return {"true": True, "false": False}.get(text.lower(), text)


def _directive(key: str, value: object) -> str:
    text = str(value)
    if "\n" in text:
        raise PlanError(f"the value of sbatch key {key!r} holds a line break")
    return f"#SBATCH --{key}" if value is True or text == "" else f"#SBATCH --{key}={quote(text)}"
