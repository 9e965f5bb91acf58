"""Job -> the script that a task of nemo-run runs: in its container, and on Slurm once for each of its processes."""

from __future__ import annotations

import posixpath
import sys
from pathlib import Path

from skills_pipe.pipeline.cluster.environment import public_environment
from skills_pipe.pipeline.cluster.paths import RUN_DIR, is_below
from skills_pipe.pipeline.plan import Job, Mount
from skills_pipe.pipeline.scripts.chain import deadline_lines
from skills_pipe.pipeline.scripts.environment import prologue, secret_lines
from skills_pipe.pipeline.scripts.render import Surroundings, export_lines, job_environment, join, local_argv, quote
from skills_pipe.pipeline.scripts.setting import Setting
from skills_pipe.pipeline.scripts.step import installed


def render_task(setting: Setting, *, queued: bool) -> str:
    """The script of a job.

    Args:
        queued: Slurm starts it, once for each rank; otherwise it is started once, and writes the log of the job.
    """
    job = setting.job
    lines = [
        "#!/bin/bash",
        f"# Job {job.name} of run {setting.run}, as nemo-run starts it.",
        "set -euo pipefail",
        *([] if queued else [f"exec >> {quote(task_log(setting))} 2>&1"]),
        f"run={quote(setting.run.at)}",
        *secret_lines(job.command),
        *_environment(setting),
        f"cd {quote(job.command.working_dir or setting.code)}",
        *(_queued_command(job) if queued else _attached_command(job)),
    ]
    return "\n".join(lines) + "\n"


def own_mounts(setting: Setting) -> tuple[Mount, ...]:
    """Mounts of a job: those of the plan, the folder of the run, the code.

    The last two have the same path inside and outside: ``/nemo_run`` is a folder of nemo-run's own here.
    """
    return (
        *setting.plan.mounts,
        Mount(source=setting.run.at, target=setting.run.at),
        Mount(source=setting.code, target=setting.code, read_only=True),
    )


def task_log(setting: Setting) -> str:
    """Path, as the job sees it, of the log of a job that this machine waits for."""
    folder, run = setting.job.log_dir, setting.run
    if is_below(folder, RUN_DIR):
        folder = posixpath.normpath(f"{run.at}/{posixpath.relpath(folder, RUN_DIR)}")
    return f"{folder}/main_{setting.job.name}_local-{run.number}.log"


def batch_lines(setting: Setting) -> list[str]:
    """What nemo-run's batch script does before its step, outside the container.

    Nothing of the submitter's environment comes along; how the job ended is left in the folder of the run. The verdict
    of a training job decides its exit code, for the edges of what waits for it.
    """
    return [
        "set +vx",
        *prologue(setting),
        'if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi',
        *(_VERDICT_LINES if setting.job.segment else []),
    ]


_VERDICT_LINES = (
    'rm -f "$run/verdicts/$job.json" "$run/save-now/$job"',
    *deadline_lines(),
    "finish() {",
    "  code=$?",
    """  case $(sed -n 's/^  "outcome": "\\([a-z]*\\)",*$/\\1/p' "$run/verdicts/$job.json" 2>/dev/null) in""",
    "    complete) code=0 ;;",
    "    continue) code=75 ;;",
    '    *) if [ "$code" -eq 0 ]; then code=1; fi ;;',
    "  esac",
    '  echo "$code" > "$run/exits/$job"',
    '  exit "$code"',
    "}",
    "trap finish EXIT",
)


def _environment(setting: Setting) -> list[str]:
    place = Surroundings(
        run_name=str(setting.run),
        run_dir=setting.run.at,
        working_dir=setting.code,
        env=tuple(public_environment(setting.cluster).items()),
    )
    lines = export_lines(job_environment(setting.job, place))
    lines.append(f'export PYTHONPATH={quote(setting.code)}"${{PYTHONPATH:+:$PYTHONPATH}}"')
    if not setting.contained:
        lines.append(f'export PATH={quote(str(Path(sys.executable).parent))}:"$PATH"')
    return lines


def _queued_command(job: Job) -> list[str]:
    return ["export SUBMITIT_EXECUTOR=slurm", f"exec {join(installed(job))}"]


def _attached_command(job: Job) -> list[str]:
    installation = job.command.installation_command
    return [*([installation] if installation else []), f"exec {join(local_argv(job))}"]
