"""What a batch script sets up before its commands: a clean environment, the run folder, secrets, variables."""

from __future__ import annotations

import sys
from pathlib import Path

from skills_pipe.pipeline.cluster.environment import public_environment
from skills_pipe.pipeline.cluster.paths import RUN_DIR
from skills_pipe.pipeline.scripts.render import Surroundings, export_lines, job_environment, quote
from skills_pipe.pipeline.scripts.setting import CODE_INSIDE, SECRETS, Setting, code_dir


def prologue(setting: Setting) -> list[str]:
    """Nothing of the submitter's environment comes along, not even what every program expects."""
    return [
        "set -uo pipefail",
        "unset SLURM_EXPORT_ENV",
        'export PATH="${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"',
        'export USER="${USER:-$(id -un)}"',
        'export HOME="${HOME:-$(getent passwd "$USER" | cut -d: -f6)}"',
        f"run={quote(setting.run.at)}",
        f"job={quote(setting.job.name)}",
        # Slurm forgets how a job ended; the run does not.
        'rm -f "$run/exits/$job"',
        """trap 'echo "$?" > "$run/exits/$job"' EXIT""",
        f'if [ -r "$run/{SECRETS}" ]; then . "$run/{SECRETS}"; fi',
    ]


def environment(setting: Setting) -> list[str]:
    """The variables of the job, and where its interpreter or its code is found."""
    job, cluster, run, inside = setting.job, setting.cluster, setting.run, setting.contained
    place = Surroundings(
        run_name=str(run),
        run_dir=RUN_DIR if inside else run.at,
        working_dir=CODE_INSIDE if inside else str(code_dir()),
        env=tuple(public_environment(cluster).items()),
    )
    lines = export_lines(job_environment(job, place))
    if inside:
        lines.append(f'export PYTHONPATH="{CODE_INSIDE}${{PYTHONPATH:+:$PYTHONPATH}}"')
    else:
        lines.append(f'export PATH={quote(str(Path(sys.executable).parent))}:"$PATH"')
    return lines
