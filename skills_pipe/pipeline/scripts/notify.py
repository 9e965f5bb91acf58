"""The last job of a run, which tells a webhook how the run ended, as shell text.

It waits for all other jobs, however they end: so it speaks when a node has died, a chain was stopped, or nobody is
logged in. It judges by the exit codes that the scripts of the jobs have left; a job that was killed has left none.
"""

from __future__ import annotations

import json

from skills_pipe.artifacts.names import ENV_PROGRESS
from skills_pipe.pipeline.cluster.notify import Occasion
from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.scripts.render import join, quote

WEBHOOK = "webhook"
"""File in the run folder with the address, readable by its owner only; gone once it was used."""

_PYTHON = (
    "import sys, urllib.request as r; url, text = sys.stdin.read().split(chr(10), 1); "
    'r.urlopen(r.Request(url, text.encode(), {"Content-Type": "application/json"}), timeout=60)'
)

_FUNCTIONS = r"""
code() { cat "$run/exits/$1" 2> /dev/null; }
all_good() { local name; for name; do [ "$(code "$name")" = 0 ] || return 1; done; }
one_good() { local name; for name; do if [ "$(code "$name")" = 0 ]; then return 0; fi; done; return 1; }
plain() { tr -cd '[:alnum:] .,:;/_=+-' | head -c 300; }
post() {
  url=$(cat "$run/webhook") || return 1
  if command -v curl > /dev/null; then
    # The address comes by standard input: everybody on the node can read what stands on a command line.
    printf 'url = "%s"\n' "$url" | curl --config - --silent --show-error --fail --max-time 60 --retry 3 \
      --header 'Content-Type: application/json' --data "$1" --output /dev/null
  elif command -v python3 > /dev/null; then
    printf '%s\n%s' "$url" "$1" | python3 -c "$python"
  else
    echo "there is neither curl nor python3 on this node"
    return 1
  fi
}
tell() {
  if post "$1"; then echo "told: $1"; else echo "the webhook was not told: $1"; fi
}
"""


def notify_text(plan: Plan, on: tuple[Occasion, ...], hint: str) -> str:
    """Shell text that tells how the run ended; it ends well itself, whether anybody could be told or not.

    Args:
        plan: the stages and jobs to judge.
        on: when something is told.
        hint: what to type to see more: ``ns status my-sft``.
    """
    lines = [
        # run/progress/JOB.json: the one path of the run that every job knows.
        f"progress=${ENV_PROGRESS}",
        "run=${progress%/progress/*}",
        f"python={quote(_PYTHON)}",
        _FUNCTIONS.strip("\n"),
        "bad=",
    ]
    for stage in plan.stages:
        jobs = plan.jobs_of(stage.name)
        if jobs:
            judge = "one_good" if any(job.segment for job in jobs) else "all_good"
            lines.append(f"{join([judge, *(job.name for job in jobs)])} || bad={quote(stage.name)}${{bad:+, $bad}}")
    lines += [
        f"name={quote(plan.expname)}/${{run##*/}}",
        'why=$(cat "$run"/chain/*.stopped 2> /dev/null | plain)',
        'if [ -z "$bad" ]; then',
        f"  {_told(on, Occasion.END, _well(hint))}",
        "else",
        f"  {_told(on, Occasion.FAILURE, _badly(hint))}",
        "fi",
        'rm -f "$run/webhook"',
    ]
    return "\n".join(lines)


def _told(on: tuple[Occasion, ...], occasion: Occasion, text: str) -> str:
    return f"tell {text}" if occasion in on else ":"


def _well(hint: str) -> str:
    return _message('"$name"', " ended well. ", hint)


def _badly(hint: str) -> str:
    return _message('"$name"', " did not end well: not finished: ", '"$bad"', '"${why:+ ($why)}"', ". ", hint)


def _message(*parts: str) -> str:
    """One word of shell: a JSON object with the text; parts in double quotes are variables, all others literal."""
    words = [part if part.startswith('"') else quote(json.dumps(part)[1:-1]) for part in parts]
    return quote('{"text": "') + "".join(words) + quote('"}')
