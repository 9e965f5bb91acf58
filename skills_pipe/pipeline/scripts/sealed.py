"""What the batch script of a job asks before it ends well: is there what the job was for?"""

from __future__ import annotations

from skills_pipe.artifacts.names import MANIFEST
from skills_pipe.pipeline.scripts.render import quote
from skills_pipe.pipeline.scripts.setting import Setting

_LINES = r"""
sealed() {
  local manifest=$output.MANIFEST digest
  if [ -d "$output" ]; then manifest=$output/MANIFEST; fi
  digest=$(sed -n 's/^  "digest": "\([0-9a-f]*\)",*$/\1/p' "$run/identities/"STAGE.json)
  grep -q "\"digest\": \"$digest\"" "$manifest" 2>/dev/null
}
if [ "$code" -ne 0 ]; then exit "$code"; fi
# What another node has written may be seen here a little later.
for pause in 0 1 3; do
  sleep "$pause"
  if sealed; then exit 0; fi
done
echo "$job ended with exit code 0, but without a finished $output: its manifest is missing, or of other options"
exit 1
"""


def last_lines(setting: Setting) -> list[str]:
    """The end of the script of a job that is no segment: what waits for it needs its output, not its exit code."""
    stage = setting.plan.stage(setting.job.stage)
    if stage.output is None or len(setting.plan.jobs_of(stage.name)) > 1:
        return ['exit "$code"']
    text = _LINES.replace("MANIFEST", MANIFEST).replace("STAGE", quote(stage.name))
    return [f"output={quote(setting.on_cluster(stage.output))}", *text.strip("\n").splitlines()]
