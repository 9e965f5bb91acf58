"""What the batch script of a segment does before and after its program: the chain goes on, ends or stops.

The script runs outside any container and reads the verdict of the program: exit codes cannot carry it.
"""

from __future__ import annotations

from skills_pipe.artifacts.names import ENV_DEADLINE
from skills_pipe.pipeline.plan import EdgeKind, Job, Plan
from skills_pipe.pipeline.scripts.render import downstream, join, quote
from skills_pipe.pipeline.scripts.setting import ALL_STOPPED, JOBS, Setting

SAVE_SECONDS = 300
"""Seconds before the time limit at which a training job is told to save."""


def chain_prologue(setting: Setting) -> list[str]:
    """The chain may have been stopped; what an earlier start of this job has left must not be taken for its own."""
    job, plan, run = setting.job, setting.plan, setting.run
    output = plan.stage(job.stage).output
    folder = setting.on_cluster(output) if output else run.at
    return [
        f"checkpoints={quote(folder)}",
        f"chain={quote(f'{run.at}/chain/{job.stage}')}",
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


def chain_epilogue(setting: Setting) -> list[str]:
    """The verdict decides. Two jobs in a row without a new step end the chain, and so does a program that gives up."""
    job = setting.job
    chain = setting.plan.jobs_of(job.stage)
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
