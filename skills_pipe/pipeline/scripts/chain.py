"""What the batch script of a segment does before and after its program: the chain goes on, ends or stops.

The script runs outside any container and reads the verdict of the program: exit codes cannot carry it. Why a job was
told to end, only Slurm knows; it is asked at once, for a KILL follows.
"""

from __future__ import annotations

from skills_pipe.artifacts.names import ENV_DEADLINE
from skills_pipe.pipeline.cluster.slurm_time import parse_time
from skills_pipe.pipeline.plan import EdgeKind, Job, Plan, Segment
from skills_pipe.pipeline.scripts.render import downstream, join, quote
from skills_pipe.pipeline.scripts.setting import ALL_STOPPED, JOBS, NOT_BEGUN, Setting

_SAVE_SECONDS = 300


def save_seconds(time_limit: str) -> int:
    """Seconds before its time limit at which a training job is told to save: five minutes, less of a short limit."""
    return min(_SAVE_SECONDS, parse_time(time_limit) // 4)


def chain_prologue(setting: Setting) -> list[str]:
    """The chain may have been stopped; what an earlier start of this job has left must not be taken for its own."""
    job, plan, run = setting.job, setting.plan, setting.run
    output = plan.stage(job.stage).output
    folder = setting.on_cluster(output) if output else run.at
    earlier = [edge.upstream for edge in job.edges if edge.kind is EdgeKind.UNFINISHED]
    return [
        # Nobody runs yet who could save; without a trap the signal would end this script.
        "early=",
        "trap 'early=1' USR1",
        f"checkpoints={quote(folder)}",
        f"chain={quote(f'{run.at}/chain/{job.stage}')}",
        *_chain_functions(job, plan),
        f'for note in "$run/{ALL_STOPPED}" "$chain.stopped"; do',
        f'  if [ -e "$note" ]; then cat "$note"; exit {NOT_BEGUN}; fi',
        "done",
        *(_look_back(earlier) if earlier else []),
        'rm -f "$run/verdicts/$job.json" "$run/save-now/$job"',
        'if [ -n "$early" ]; then touch "$run/save-now/$job"; fi',
        *deadline_lines(),
        "before=$(latest_step)",
    ]


def deadline_lines() -> list[str]:
    """The time limit, for the program, in Unix seconds; without an answer of Slurm there is none."""
    return [
        'limit=$(SLURM_TIME_FORMAT=%s squeue -h -j "$SLURM_JOB_ID" -o %e 2>/dev/null)',
        f'case "$limit" in "" | *[!0-9]*) ;; *) export {ENV_DEADLINE}="$limit" ;; esac',
    ]


def chain_epilogue(setting: Setting) -> list[str]:
    """The verdict decides. Two jobs in a row without a new step end the chain, and so does a program that gives up."""
    job = setting.job
    segment = job.segment or Segment(index=0, count=1)
    chain = setting.plan.jobs_of(job.stage)
    later = [other.name for other in chain if other.segment and other.segment.index > segment.index]
    return [
        "ask_why",
        'verdict=$(sed -n \'s/^  "outcome": "\\([a-z]*\\)",*$/\\1/p\' "$run/verdicts/$job.json" 2>/dev/null)',
        'if [ "$verdict" = complete ]; then',
        f"  {join(['cancel', *later])}",
        "  exit 0",
        "fi",
        'if [ "$verdict" = failed ]; then stop_chain "$job cannot go on"; fi',
        'if [ -e "$chain.stopped" ]; then stop_chain "$(cat "$chain.stopped")"; fi',
        # That it was cut short tells nothing of the program, and uses up no place in the chain.
        "if is_requeued; then exit 75; fi",
        "if is_preempted; then again; fi",
        'if [ -n "$terminated" ] && ! is_late; then',
        "  :",
        'elif [ "$(latest_step)" -gt "$before" ]; then',
        '  rm -f "$chain.stalled"',
        'elif [ -e "$chain.stalled" ]; then',
        '  stop_chain "two jobs in a row made no new step"',
        "else",
        '  touch "$chain.stalled"',
        "fi",
        *(_queue_again(segment.count) if segment.requeue else []),
        'if [ "$verdict" = continue ]; then exit 75; fi',
        'if [ "$code" -eq 0 ]; then exit 1; fi',
        'exit "$code"',
    ]


def _look_back(earlier: list[str]) -> list[str]:
    lines = _LOOK_BACK.strip("\n").replace("NOT_BEGUN", str(NOT_BEGUN)).splitlines()
    return [*lines, join(["look_back", *earlier])]


def _queue_again(count: int) -> list[str]:
    """One job is the whole chain: it queues itself until it has started ``count`` times to some effect."""
    return [
        'echo "${verdict:-no verdict}, exit code $code" >> "$chain.starts"',
        f'if [ "$(wc -l < "$chain.starts")" -lt {count} ]; then again; fi',
    ]


def _chain_functions(job: Job, plan: Plan) -> list[str]:
    return [
        *_FUNCTIONS.strip("\n").replace("JOBS", JOBS).splitlines(),
        "stop_chain() {",
        # By rename: whoever sees the note sees the reason.
        '  echo "$1" | tee "$chain.stopped.$job" && mv "$chain.stopped.$job" "$chain.stopped"',
        f"  {join(['cancel', *sorted(downstream(plan, {job.name}))])}",
        '  exit "${2:-1}"',
        "}",
    ]


_FUNCTIONS = r"""
latest_step() {
  {
    echo -1
    for folder in "$checkpoints"/step_*; do [ -e "$folder/manifest.json" ] && echo "${folder##*_}"; done
  } | sort -n | tail -n 1
}
ids() {
  for name; do awk -F "\t" -v name="$name" '$1 == name { print $2 }' "$run/JOBS"; done
}
cancel() {
  if [ "$#" -gt 0 ]; then scancel $(ids "$@"); fi
}
# What Slurm says of this job now; nothing when it gives no answer.
ask_why() {
  told=$(scontrol show job -o "$SLURM_JOB_ID" 2>/dev/null)
}
# It will start again, under the same id: a node died, or somebody requeued or preempted it.
is_requeued() {
  [[ $told =~ " Restarts="([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -gt "${SLURM_RESTART_COUNT:-0}" ]
}
is_preempted() {
  [[ $told =~ " PreemptTime="[0-9] ]]
}
is_late() {
  [[ $told =~ " RunTime="([-:0-9]+)" TimeLimit="([-:0-9]+)" " ]] || return 1
  local ran=${BASH_REMATCH[1]} may=${BASH_REMATCH[2]}
  [ "$(seconds "$ran")" -ge "$(seconds "$may")" ]
}
seconds() {
  local days=0 hours minutes rest clock=$1
  if [[ $clock == *-* ]]; then days=${clock%%-*} clock=${clock#*-}; fi
  IFS=: read -r hours minutes rest <<< "$clock"
  echo "$(((10#$days * 24 + 10#$hours) * 3600 + 10#$minutes * 60 + 10#$rest))"
}
# Who cancels a segment means the chain; for Slurm it only did not end well, and the next one may start.
on_term() {
  ran_until_now
  ask_why
  if [ -z "$told" ] || is_requeued || is_preempted || is_late || [[ $told =~ " Reason=Node" ]]; then return; fi
  # Slurm knows of no end: the signal came from elsewhere, from a node that shuts down.
  if [[ $told == *" JobState=RUNNING "* ]]; then return; fi
  # `ns cancel` has said so itself.
  if [ ! -e "$chain.stopped" ]; then echo "$job was cancelled" > "$chain.stopped"; fi
}
# The same job once more: Slurm ends this script, and starts it anew in its turn.
again() {
  ran_until_now
  scontrol requeue "$SLURM_JOB_ID" || return
  while :; do
    sleep 1 &
    wait $!
  done
}
"""

_LOOK_BACK = r"""
look_back() {
  local name id state
  for name; do
    id=$(ids "$name")
    state=$(squeue -h -t all -j "$id" -o %T 2>/dev/null)
    if [ -z "$state" ]; then state=$(sacct -n -X -j "$id" -o State%20 2>/dev/null | awk 'NR == 1 { print $1 }'); fi
    if [ "$state" = CANCELLED ]; then stop_chain "$name was cancelled" NOT_BEGUN; fi
    # Forgotten by Slurm. One that ended without ever having started can only have been cancelled.
    if [ -z "$state" ] && ! ls "$run/events/$name-$id-"* > /dev/null 2>&1; then
      stop_chain "$name never started: it was cancelled" NOT_BEGUN
    fi
  done
}
"""
