"""Job -> the script that a task of nemo-run runs: in its container, and on Slurm once for each of its processes."""

from __future__ import annotations

import posixpath
import sys
from pathlib import Path

from skills_pipe.artifacts.names import ENV_DEADLINE
from skills_pipe.pipeline.cluster.environment import public_environment
from skills_pipe.pipeline.cluster.paths import RUN_DIR, is_below
from skills_pipe.pipeline.plan import Job, Mount
from skills_pipe.pipeline.scripts.render import Surroundings, export_lines, job_environment, join, local_argv, quote
from skills_pipe.pipeline.scripts.setting import SECRETS, Setting, code_dir
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
        f"if [ -r {quote(_own(setting, SECRETS))} ]; then . {quote(_own(setting, SECRETS))}; fi",
        *_environment(setting),
        f"cd {quote(job.command.working_dir or str(code_dir()))}",
        *(_queued_command(job) if queued else _attached_command(job)),
    ]
    return "\n".join(lines) + "\n"


def own_mounts(setting: Setting) -> tuple[Mount, ...]:
    """Mounts of a job: those of the plan, the folder of the run, the code.

    The last two have the same path inside and outside: ``/nemo_run`` is a folder of nemo-run's own here.
    """
    code = str(code_dir() / "skills_pipe")
    return (
        *setting.plan.mounts,
        Mount(source=setting.run.at, target=setting.run.at),
        Mount(source=code, target=code, read_only=True),
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
    job = setting.job
    return [
        "set +vx",
        "unset SLURM_EXPORT_ENV",
        'export PATH="${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"',
        'export USER="${USER:-$(id -un)}"',
        'export HOME="${HOME:-$(getent passwd "$USER" | cut -d: -f6)}"',
        'if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi',
        f"exit_file={quote(_own(setting, f'exits/{job.name}'))}",
        'rm -f "$exit_file"',
        *(_verdict_lines(setting) if job.segment else ["""trap 'echo "$?" > "$exit_file"' EXIT"""]),
    ]


def _own(setting: Setting, name: str) -> str:
    return f"{setting.run.at}/{name}"


def _environment(setting: Setting) -> list[str]:
    place = Surroundings(
        run_name=str(setting.run),
        run_dir=setting.run.at,
        working_dir=str(code_dir()),
        env=tuple(public_environment(setting.cluster).items()),
    )
    lines = export_lines(job_environment(setting.job, place))
    if setting.contained:
        lines.append(f'export PYTHONPATH={quote(str(code_dir()))}"${{PYTHONPATH:+:$PYTHONPATH}}"')
    else:
        lines.append(f'export PATH={quote(str(Path(sys.executable).parent))}:"$PATH"')
    return lines


def _queued_command(job: Job) -> list[str]:
    return ["export SUBMITIT_EXECUTOR=slurm", f"exec {join(installed(job))}"]


def _attached_command(job: Job) -> list[str]:
    installation = job.command.installation_command
    return [*([installation] if installation else []), f"exec {join(local_argv(job))}"]


def _verdict_lines(setting: Setting) -> list[str]:
    name = setting.job.name
    verdict, save_now = (quote(_own(setting, path)) for path in (f"verdicts/{name}.json", f"save-now/{name}"))
    return [
        f"rm -f {verdict} {save_now}",
        'end=$(squeue -h -j "$SLURM_JOB_ID" -o %e 2>/dev/null)',
        'if [ -n "$end" ] && limit=$(date -d "$end" +%s 2>/dev/null); then',
        f'  export {ENV_DEADLINE}="$limit"',
        "fi",
        "finish() {",
        "  code=$?",
        f'  case $(sed -n \'s/^  "outcome": "\\([a-z]*\\)",*$/\\1/p\' {verdict} 2>/dev/null) in',
        "    complete) code=0 ;;",
        "    continue) code=75 ;;",
        '    *) if [ "$code" -eq 0 ]; then code=1; fi ;;',
        "  esac",
        '  echo "$code" > "$exit_file"',
        '  exit "$code"',
        "}",
        "trap finish EXIT",
    ]
