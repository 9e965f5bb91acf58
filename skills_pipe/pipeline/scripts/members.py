"""How the commands of a job start, are watched and end, as lines of its batch script."""

from __future__ import annotations

from skills_pipe.pipeline.scripts.setting import Setting
from skills_pipe.pipeline.scripts.step import component_lines, main_component


def run_lines(setting: Setting) -> list[str]:
    """Lines that run the step and leave its exit code in ``$code``, and whether a TERM came in ``$terminated``.

    The step runs in the background: a trap runs only while bash waits, and a signal to srun would hit its children.
    """
    save_now = 'touch "$run/save-now/$job"; ' if setting.job.segment else ""
    *step, end = component_lines(setting, main_component(setting))
    return [
        "export SUBMITIT_EXECUTOR=slurm",
        # Since 22.05 srun takes the cores of a task over from sbatch only by this name.
        'if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi',
        "interrupted=",
        f"trap '{save_now}interrupted=1' USR1",
        "terminated=",
        "trap 'interrupted=1; terminated=1' TERM",
        *step,
        f"{end} &",
        "while :; do",
        "  interrupted=",
        "  wait $!",
        "  code=$?",
        '  if [ -z "$interrupted" ]; then break; fi',
        "done",
    ]
