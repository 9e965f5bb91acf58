"""Job -> batch script for Slurm, and edges -> dependency on the command line of sbatch.

The script runs on the first node, outside any container. It knows nothing that is known only after sbatch: ids of
other jobs are looked up in ``jobs.tsv`` of the run.
"""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Mapping
from pathlib import Path

import skills_pipe
from skills_pipe.artifacts.names import ENV_DEADLINE, ENV_PROGRESS
from skills_pipe.errors import PlanError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime
from skills_pipe.pipeline.cluster.environment import public_environment
from skills_pipe.pipeline.cluster.paths import RUN_DIR, is_below, to_cluster
from skills_pipe.pipeline.plan import EdgeKind, Job, Launch, Mount, Plan
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.scripts.containers import ContainerSpec, srun_flags
from skills_pipe.pipeline.scripts.render import (
    Surroundings,
    downstream,
    export_lines,
    job_environment,
    join,
    quote,
)

SECRETS = "secrets.env"
"""File in the run folder, readable by its owner only, with variables that must not stand in scripts."""
JOBS = "jobs.tsv"
"""File in the run folder: one line for each job, name and id of Slurm."""
ALL_STOPPED = "chain/all.stopped"
"""File in the run folder that keeps the segments of all its chains from starting."""

SAVE_SECONDS = 300
"""Seconds before the time limit at which a training job is told to save."""

_CODE_INSIDE = f"{RUN_DIR}/code"


def render_sbatch(job: Job, plan: Plan, cluster: ClusterConfig, run: Run) -> str:
    """The batch script of a job."""
    parts = [
        ["#!/bin/bash", *_header(job, plan, cluster, run)],
        [f"# Job {job.name} of run {run}.", *_prologue(job, run)],
        _environment(job, plan, cluster, run),
        _chain_prologue(job, plan, cluster, run) if job.segment else [],
        _step(job, plan, cluster, run),
        _chain_epilogue(job, plan) if job.segment else ['exit "$code"'],
    ]
    return "\n".join(line for part in parts if part for line in (*part, "")).rstrip("\n") + "\n"


def dependency(job: Job, ids: Mapping[str, str], after: tuple[str, ...] = ()) -> str | None:
    """Value of ``sbatch --dependency`` for a job, None when it waits for nothing.

    Args:
        ids: job -> id, or a name that stands for it.
        after: ids of jobs of earlier runs. They hold for every job that waits for no finished job of this plan, and
            for every segment: one whose predecessor was cancelled would start otherwise.

    Raises:
        PlanError: an any-of edge stands beside others. sbatch would silently make an any-of of all of them.
    """
    kinds = {kind: [ids[edge.upstream] for edge in job.edges if edge.kind is kind] for kind in EdgeKind}
    alternatives = kinds[EdgeKind.ANY_SUCCEEDED]
    external = () if kinds[EdgeKind.SUCCEEDED] or alternatives else after
    if alternatives:
        if kinds[EdgeKind.SUCCEEDED] or kinds[EdgeKind.UNFINISHED]:
            raise PlanError(f"job {job.name!r} mixes an any-of edge with others", fix="put a gate job between them")
        return "?".join(f"afterok:{job_id}" for job_id in alternatives)
    parts = [f"afterok:{job_id}" for job_id in (*external, *kinds[EdgeKind.SUCCEEDED])]
    parts += [f"afternotok:{job_id}" for job_id in kinds[EdgeKind.UNFINISHED]]
    return ",".join(parts) or None


def log_paths(job: Job, plan: Plan, cluster: ClusterConfig, run: Run) -> tuple[str, str]:
    """Paths of the logs of the batch script and of its step; ``%j`` stands for the job id."""
    folder = seen_by_cluster(job.log_dir, plan, cluster, run)
    return f"{folder}/{job.name}_%j_sbatch.log", f"{folder}/main_{job.name}_%j_srun.log"


def batch_log(step_log: Path) -> Path:
    """The log of the batch script beside the log of its step: it says why a step never began."""
    return step_log.with_name(step_log.name.removeprefix("main_").removesuffix("_srun.log") + "_sbatch.log")


def seen_by_cluster(path: str, plan: Plan, cluster: ClusterConfig, run: Run) -> str:
    """A path of a job as the cluster itself has it: the same without containers, but for the run folder."""
    if is_below(path, RUN_DIR):
        return posixpath.normpath(f"{run.folder}/{posixpath.relpath(path, RUN_DIR)}")
    return path if cluster.container_runtime is ContainerRuntime.NONE else to_cluster(path, plan.mounts)


def _header(job: Job, plan: Plan, cluster: ClusterConfig, run: Run) -> list[str]:
    resources = job.resources
    batch_log, _ = log_paths(job, plan, cluster, run)
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
        "ntasks-per-node": _tasks_per_node(job),
        "gpus-per-node": gpus,
        "exclusive": True if resources.exclusive else None,
        "output": batch_log,
        "open-mode": "append",
        "requeue": True,
        "export": "NIL",
        "signal": f"B:USR1@{SAVE_SECONDS}" if job.segment and resources.time_limit else None,
        "mail-type": mail,
        "mail-user": cluster.mail_user if mail else None,
        **cluster.sbatch,
    }
    return [_directive(key, value) for key, value in keys.items() if value is not None and value is not False]


def _directive(key: str, value: object) -> str:
    text = str(value)
    if "\n" in text:
        raise PlanError(f"the value of sbatch key {key!r} holds a line break")
    return f"#SBATCH --{key}" if value is True or text == "" else f"#SBATCH --{key}={quote(text)}"


def _prologue(job: Job, run: Run) -> list[str]:
    """Nothing of the submitter's environment comes along, not even what every program expects."""
    return [
        "set -uo pipefail",
        "unset SLURM_EXPORT_ENV",
        'export PATH="${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"',
        'export USER="${USER:-$(id -un)}"',
        'export HOME="${HOME:-$(getent passwd "$USER" | cut -d: -f6)}"',
        f"run={quote(str(run.folder))}",
        f"job={quote(job.name)}",
        # Slurm forgets how a job ended; the run does not.
        'rm -f "$run/exits/$job"',
        """trap 'echo "$?" > "$run/exits/$job"' EXIT""",
        f'if [ -r "$run/{SECRETS}" ]; then . "$run/{SECRETS}"; fi',
    ]


def _environment(job: Job, plan: Plan, cluster: ClusterConfig, run: Run) -> list[str]:
    inside = cluster.container_runtime is not ContainerRuntime.NONE
    place = Surroundings(
        run_name=str(run),
        run_dir=RUN_DIR if inside else str(run.folder),
        working_dir=_CODE_INSIDE if inside else str(_code_dir()),
        env=tuple(public_environment(cluster).items()),
    )
    lines = export_lines(job_environment(job, place))
    if inside:
        lines.append(f'export PYTHONPATH="{_CODE_INSIDE}${{PYTHONPATH:+:$PYTHONPATH}}"')
    else:
        lines.append(f'export PATH={quote(str(Path(sys.executable).parent))}:"$PATH"')
    return lines


def _chain_prologue(job: Job, plan: Plan, cluster: ClusterConfig, run: Run) -> list[str]:
    """The chain may have been stopped; what an earlier start of this job has left must not be taken for its own."""
    output = plan.stage(job.stage).output
    folder = seen_by_cluster(output, plan, cluster, run) if output else str(run.folder)
    return [
        f"checkpoints={quote(folder)}",
        f"chain={quote(f'{run.folder}/chain/{job.stage}')}",
        *_chain_functions(job, plan),
        f'for note in "$run/{ALL_STOPPED}" "$chain.stopped"; do',
        '  if [ -e "$note" ]; then cat "$note"; exit 1; fi',
        "done",
        *_predecessors(job, plan),
        'rm -f "$run/verdicts/$job.json" "$run/save-now/$job"',
        # Without an answer from squeue there must be no deadline: date takes nothing for midnight, which is over.
        'end=$(squeue -h -j "$SLURM_JOB_ID" -o %e 2>/dev/null)',
        'if [ -n "$end" ] && limit=$(date -d "$end" +%s 2>/dev/null); then',
        f'  export {ENV_DEADLINE}="$limit"',
        "fi",
        "before=$(latest_step)",
    ]


def _chain_functions(job: Job, plan: Plan) -> list[str]:
    return [
        "latest_step() {",
        "  {",
        "    echo -1",
        '    for folder in "$checkpoints"/step_*; do [ -e "$folder/manifest.json" ] && echo "${folder##*_}"; done',
        "  } | sort -n | tail -n 1",
        "}",
        "ids() {",
        '  for name; do awk -F "\\t" -v name="$name" \'$1 == name { print $2 }\' "$run/' + JOBS + '"; done',
        "}",
        "cancel() {",
        '  if [ "$#" -gt 0 ]; then scancel $(ids "$@"); fi',
        "}",
        "stop_chain() {",
        '  echo "$1" | tee "$chain.stopped"',
        f"  {join(['cancel', *sorted(downstream(plan, {job.name}))])}",
        "  exit 1",
        "}",
    ]


def _predecessors(job: Job, plan: Plan) -> list[str]:
    """Who cancels a segment by hand means the chain; for Slurm it only did not end well, and the next one may start."""
    earlier = [edge.upstream for edge in job.edges if edge.kind is EdgeKind.UNFINISHED]
    if not earlier:
        return []
    return [
        f"earlier=$({join(['ids', *earlier])} | paste -s -d ,)",
        'if squeue -h -t all -j "$earlier" -o %T 2>/dev/null | grep -q -x CANCELLED; then',
        '  stop_chain "an earlier job of the chain was cancelled"',
        "fi",
    ]


def _step(job: Job, plan: Plan, cluster: ClusterConfig, run: Run) -> list[str]:
    """The step in the background: a trap runs only while bash waits, and a signal to srun would hit its children."""
    _, step_log = log_paths(job, plan, cluster, run)
    tasks = _tasks_per_node(job)
    nodes = job.resources.num_nodes if job.command.launch is Launch.PER_GPU else 1
    argv = [
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
        *_container_flags(job, plan, cluster, run),
        *_installed(job),
    ]
    save_now = 'touch "$run/save-now/$job"; ' if job.segment else ""
    return [
        "export SUBMITIT_EXECUTOR=slurm",
        # Since 22.05 srun takes the cores of a task over from sbatch only by this name.
        'if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi',
        "interrupted=",
        f"trap '{save_now}interrupted=1' USR1",
        "terminated=",
        "trap 'interrupted=1; terminated=1' TERM",
        f"{join(argv)} &",
        "while :; do",
        "  interrupted=",
        "  wait $!",
        "  code=$?",
        '  if [ -z "$interrupted" ]; then break; fi',
        "done",
    ]


def _chain_epilogue(job: Job, plan: Plan) -> list[str]:
    """The verdict decides. Two jobs in a row without a new step end the chain, and so does a program that gives up."""
    chain = plan.jobs_of(job.stage)
    later = [other.name for other in chain if other.segment and job.segment and other.segment.index > job.segment.index]
    return [
        'verdict=$(sed -n \'s/^  "outcome": "\\([a-z]*\\)",*$/\\1/p\' "$run/verdicts/$job.json" 2>/dev/null)',
        'if [ "$verdict" = complete ]; then',
        f"  {join(['cancel', *later])}",
        "  exit 0",
        "fi",
        'if [ "$verdict" = failed ]; then stop_chain "$job cannot go on"; fi',
        # Cancelled or preempted before its time was up: that tells nothing of the program.
        'if [ -n "$terminated" ] && [ "$(date +%s)" -lt "${limit:-9999999999}" ]; then',
        "  :",
        'elif [ "$(latest_step)" -gt "$before" ]; then',
        '  rm -f "$chain.stalled"',
        'elif [ -e "$chain.stalled" ]; then',
        '  stop_chain "two jobs in a row made no new step"',
        "else",
        '  touch "$chain.stalled"',
        "fi",
        'if [ "$verdict" = continue ]; then exit 75; fi',
        'if [ "$code" -eq 0 ]; then exit 1; fi',
        'exit "$code"',
    ]


def _container_flags(job: Job, plan: Plan, cluster: ClusterConfig, run: Run) -> tuple[str, ...]:
    command = job.command
    if cluster.container_runtime is ContainerRuntime.NONE:
        spec = ContainerSpec(image="", mounts=(), working_dir=command.working_dir or str(_code_dir()))
        return srun_flags(cluster.container_runtime, spec)
    own = (
        Mount(source=str(run.folder), target=RUN_DIR),
        Mount(source=str(_code_dir() / "skills_pipe"), target=f"{_CODE_INSIDE}/skills_pipe", read_only=True),
    )
    spec = ContainerSpec(
        image=cluster.containers.get(command.container, command.container),
        mounts=(*plan.mounts, *own),
        working_dir=command.working_dir or _CODE_INSIDE,
        pass_env=tuple({**public_environment(cluster), **dict(command.env)}),
    )
    return srun_flags(cluster.container_runtime, spec)


def _installed(job: Job) -> tuple[str, ...]:
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


def _tasks_per_node(job: Job) -> int:
    return max(1, job.resources.num_gpus) if job.command.launch is Launch.PER_GPU else 1


def _code_dir() -> Path:
    """Folder that holds the package, as this machine and the nodes see it."""
    return Path(skills_pipe.__file__).resolve().parents[1]
