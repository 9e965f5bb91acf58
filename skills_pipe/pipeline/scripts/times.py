"""When a job ran, over all its starts: each start leaves a line when it begins, and one when it is told to end.

Slurm tells the times of the last start only, and forgets these too.
"""

from __future__ import annotations

import json

from skills_pipe.pipeline.records.times import RAN_FROM, RAN_TO
from skills_pipe.pipeline.scripts.render import quote
from skills_pipe.pipeline.scripts.setting import Setting

_LINES = r"""
start="${SLURM_RESTART_COUNT:-0}"
times="$run/events/$job-$SLURM_JOB_ID"
note_time() {
  printf '{"time": %s, "subject": %s, "kind": "%s", "details": {"start": %s}}\n' \
    "$2" SUBJECT "$1" "$3" >> "$times-$start.jsonl"
}
ran_until_now() {
  note_time "RAN_TO" "$(date +%s.%N)" "$start"
}
# A node that died could not say so: its last sign of life is the end of that start.
before="$((start - 1))"
if [ -e "$times-$before.jsonl" ] && ! grep -q "RAN_TO" "$times-$before.jsonl"; then
  alive=$(stat -c %Y "$times-$before.jsonl" "$run/progress/$job.json" 2>/dev/null | sort -n | tail -n 1)
  note_time "RAN_TO" "$alive" "$before"
fi
note_time "RAN_FROM" "$(date +%s.%N)" "$start"
# Taken over by jobs that have something to look after.
on_term() {
  ran_until_now
}
"""


def time_lines(setting: Setting) -> list[str]:
    """Lines that note the start of a job, and functions that note its end."""
    text = _LINES.replace("SUBJECT", quote(json.dumps(setting.job.name)))
    return text.replace("RAN_TO", RAN_TO).replace("RAN_FROM", RAN_FROM).strip("\n").splitlines()
