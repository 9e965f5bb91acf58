"""What commands of a batch script find around them: a clean shell, and their own secrets and variables."""

from __future__ import annotations

import sys
from pathlib import Path

from skills_pipe.artifacts.names import ENV_IDENTITY, ENV_PROGRESS, ENV_SAVE_NOW, ENV_VERDICT, ENV_WARNINGS
from skills_pipe.pipeline.cluster.environment import public_environment
from skills_pipe.pipeline.cluster.paths import RUN_DIR
from skills_pipe.pipeline.plan import Command
from skills_pipe.pipeline.scripts.render import export_lines, quote
from skills_pipe.pipeline.scripts.setting import CODE_INSIDE, SECRETS, Component, Setting


def prologue(setting: Setting) -> list[str]:
    """Nothing of the submitter's environment comes along, not even what every program expects."""
    lines = _CLEAN.strip("\n").replace("KEPT", " | ".join(_KEPT)).splitlines()
    return [
        "set -uo pipefail",
        *lines,
        f"run={quote(setting.run.at)}",
        f"job={quote(setting.job.name)}",
        # Slurm forgets how a job ended; the run does not.
        'rm -f "$run/exits/$job"',
        """trap 'echo "$?" > "$run/exits/$job"' EXIT""",
        # Without it that would be the code of the last command before the signal, often 0.
        "trap 'exit 143' TERM",
        # Where the code is mounted: not every runtime can make a folder in a mount.
        *(['mkdir -p "$run/code"'] if setting.contained else []),
    ]


_KEPT = (
    *("SLURM*", "SPANK_*", "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LC_*"),
    *("CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"),
    # Scripts of nemo-run read it at their end.
    "TORCHX_MAX_RETRIES",
)
"""Patterns of the variables that Slurm sets for a job, and that say who the user is."""

_CLEAN = r"""
# Where nobody has kept it from doing so, Slurm has read what the user's profile sets, tokens and all.
if [ -n "${SLURM_GET_USER_ENV:-}" ]; then
  unset -f $(compgen -A function)
  for name in $(compgen -e); do
    case "$name" in
      KEPT) ;;
      *) unset "$name" ;;
    esac
  done
fi
unset SLURM_EXPORT_ENV
export PATH="${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
export USER="${USER:-$(id -un)}"
export HOME="${HOME:-$(unset HOME; echo ~)}"
"""


def secret_lines(command: Command) -> list[str]:
    """Lines that export the secrets that a command may have, in a shell that starts it and nothing else."""
    file = f'"$run/{SECRETS}"'
    if command.secrets == ():
        return []
    lines = [f"if [ -r {file} ]; then . {file}; fi"]
    allowed = quote(f" {' '.join(command.secrets or ())} ")
    if command.secrets is not None:
        lines += [
            f"for name in $(sed -n 's/^export \\([A-Za-z0-9_]*\\)=.*/\\1/p' {file} 2>/dev/null); do",
            f'  case {allowed} in *" $name "*) ;; *) unset "$name" ;; esac',
            "done",
        ]
    return lines


def variables(setting: Setting, component: Component) -> dict[str, str]:
    """Variables of a command; later ones win: those of the command over those of the cluster."""
    values = {"PYTHONUNBUFFERED": "1"} | public_environment(setting.cluster) | dict(component.command.env)
    return values | _records(setting) if component.main else values


def variable_lines(setting: Setting, component: Component) -> list[str]:
    """Lines that export the variables of a command, and where its code and its interpreter are found."""
    lines = export_lines(variables(setting, component).items())
    if component.command.mounts or not setting.contained:
        code = CODE_INSIDE if setting.contained else setting.code
        lines.append(f'export PYTHONPATH={quote(code)}"${{PYTHONPATH:+:$PYTHONPATH}}"')
    if not setting.contained and setting.cluster.ssh_tunnel is None:
        lines.append(f'export PATH={quote(str(Path(sys.executable).parent))}:"$PATH"')
    return lines


def _records(setting: Setting) -> dict[str, str]:
    job, run = setting.job, RUN_DIR if setting.contained else setting.run.at
    names = {
        ENV_IDENTITY: f"{run}/identities/{job.stage}.json",
        ENV_PROGRESS: f"{run}/progress/{job.name}.json",
        ENV_WARNINGS: f"{run}/warnings/{job.name}.json",
    }
    if job.segment is not None:
        names[ENV_VERDICT] = f"{run}/verdicts/{job.name}.json"
        names[ENV_SAVE_NOW] = f"{run}/save-now/{job.name}"
    return names
