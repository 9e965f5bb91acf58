"""Plan -> the one script that queues its jobs, and the one that settles what such a script has left half done.

All jobs are queued held. ``jobs.tsv`` appears in one step once all of them are accepted and Slurm has been seen to wait
as it should: that is the moment from which the run is submitted. Then they are released. Whatever is killed before
that moment leaves held jobs only, and they are found: each has its script in the folder of the run.

Settling makes an empty ``jobs.tsv``, unless there is one. So a script that is only slow, not dead, finds its place
taken and takes its jobs back: one of the two decides, never both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.plan import Job, Plan
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.scripts.dependency import dependency
from skills_pipe.pipeline.scripts.habits import WITHOUT_HABITS
from skills_pipe.pipeline.scripts.render import join, quote
from skills_pipe.pipeline.scripts.setting import Setting, log_folder

JOURNAL = "submitting.tsv"
"""File in the run folder: name and id of each job as soon as Slurm has taken it."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FEW = ("HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "SLURM_CONF", "SLURM_CLUSTERS")
"""Variables of the user that sbatch, and so a job, gets besides PATH."""

_FIND = r"""
found() {
  squeue -h -u "$(id -un)" -o '%i %o' 2> /dev/null | while read -r id script; do
    case "$script" in
      "$run"/scripts/*.sh) script=${script##*/}; printf '%s\t%s\n' "${script%.sh}" "$id" ;;
      "$run"/nemo-run/*_sbatch.sh) script=${script##*/}; printf '%s\t%s\n' "${script%_sbatch.sh}" "$id" ;;
    esac
  done
}
"""

_QUEUE = r"""
ids=()
take_back() {
  trap '' INT TERM HUP
  ids+=($(found | cut -f 2))
  if [ "${#ids[@]}" -gt 0 ]; then scancel "${ids[@]}"; fi
  echo "$*" >&2
  exit 3
}
trap 'take_back interrupted' INT TERM HUP
# What a job gets of the environment here: where programs are, Slurm's own too, and who the user is. An older Slurm
# takes --export=NIL for the name of a variable, and adds what the profile of the user sets, tokens and all.
sbatch=$(type -P sbatch || echo sbatch)
srun=$(type -P srun || echo "$sbatch")
few=("PATH=SYSTEM_PATH:$(dirname "$srun")")
for name in FEW; do
  if [ -n "${!name-}" ]; then few+=("$name=${!name}"); fi
done
# queue NAME sbatch WORDS...
queue() {
  local name=$1 answer
  shift 2
  answer=$(env -i "${few[@]}" "$sbatch" "$@" 2> "$run/submitting.err") ||
    take_back "sbatch refused $name: $(< "$run/submitting.err")"
  # What a wrapper of the site has to say stands above it.
  id=${answer##*$'\n'}
  id=${id%%;*}
  case "$id" in "" | *[!0-9]*) take_back "sbatch gave no id for $name: $answer" ;; esac
  ids+=("$id")
  printf '%s\t%s\n' "$name" "$id" >> "$journal" || take_back "$journal cannot be written"
}
taken() {
  ids+=("$2")
  printf '%s\t%s\n' "$1" "$2" >> "$journal" || take_back "$journal cannot be written"
}
declare -A edges=()
read_back() {
  local rows id text
  rows=$(squeue -h -t all -u "$(id -un)" -o '%i|%E') || take_back "squeue gave no answer after the jobs were queued"
  while IFS='|' read -r id text; do edges[$id]=$text; done <<< "$rows"
}
sees() {
  [[ ${edges[$1]-} =~ (^|[^0-9])$2([^0-9]|$) ]]
}
waits_for() {
  sees "$1" "$2" || take_back "Slurm took job $1 without its dependency on job $2"
}
comes_after() {
  local state
  state=$(squeue -h -t all -j "$1" -o %T 2> /dev/null)
  state=${state:-$(sacct -n -X -j "$1" -o State%20 2> /dev/null | awk 'NR == 1 { print $1 }')}
  case "$state" in
    COMPLETED | PENDING | RUNNING | CONFIGURING | COMPLETING | SUSPENDED | REQUEUE* | RESIZING | SIGNALING | ST*) ;;
    "") take_back "Slurm does not know job $1 any more, and would not wait for it" ;;
    *) take_back "job $1, which has to end well first, is $state" ;;
  esac
}
commit() {
  trap '' INT TERM HUP
  ln "$journal" "$run/jobs.tsv" || {
    [ -e "$run/jobs.tsv" ] || take_back "$run/jobs.tsv cannot be made"
    take_back "the submission was given up meanwhile by somebody who took it for dead"
  }
  local list try
  list=$(IFS=,; echo "${ids[*]}")
  for try in 1 2 3 4 5; do
    if scontrol release "$list" 2> "$run/submitting.err"; then cat "$run/jobs.tsv"; exit 0; fi
    sleep "$try"
  done
  cat "$run/jobs.tsv"
  cat "$run/submitting.err" >&2
  exit 4
}
"""

_SETTLE = r"""
settle() {
  if (set -o noclobber; : > "$run/jobs.tsv") 2> /dev/null || ! [ -s "$run/jobs.tsv" ]; then
    squeue -h -o %i > /dev/null || exit 1
    local left
    left=$(found | sort -t "$(printf '\t')" -k 2n)
    if [ -n "$left" ]; then scancel $(cut -f 2 <<< "$left") || exit 1; fi
    echo "taken back"
    if [ -n "$left" ]; then echo "$left"; fi
  else
    # It complains of jobs that were released before and have ended.
    scontrol release "$(cut -f 2 "$run/jobs.tsv" | paste -s -d ,)" > /dev/null 2>&1
    local waiting
    waiting=$(squeue -h -u "$(id -un)" -o '%r %o') || exit 1
    if [[ $waiting == *"JobHeldUser $run/"* ]]; then
      echo "the jobs are queued, but cannot be released" >&2
      exit 1
    fi
    echo submitted
    cat "$run/jobs.tsv"
  fi
}
settle
"""

NOT_RELEASED = 4
"""Exit code of the script when all jobs are queued and recorded, but still held."""


def submission_script(plan: Plan, cluster: ClusterConfig, run: Run, after: tuple[str, ...] = ()) -> str:
    """The script that queues the jobs of ``plan`` and prints a line ``name<TAB>id`` for each; all of them, or none.

    Args:
        after: ids of jobs of earlier runs that must end well first.
    """
    names = Variables.of(plan)
    folders = sorted({log_folder(_setting(job, plan, cluster, run)) for job in plan.jobs})
    body = [f"mkdir -p {join(folders)} || take_back 'the folders for logs cannot be made'", ': > "$journal"']
    if not cluster.account and "account" not in cluster.sbatch:
        body.append('if [ -n "${SBATCH_ACCOUNT-}" ]; then few+=("SBATCH_ACCOUNT=$SBATCH_ACCOUNT"); fi')
    body += [_queue_line(job, names, cluster, after) for job in plan.jobs]
    body += ["read_back", *_read_back_lines(plan, names, after), "commit"]
    return _transaction(run, body)


def adoption_script(plan: Plan, run: Run, ids: Mapping[str, str], after: tuple[str, ...] = ()) -> str:
    """The same for jobs that somebody else has queued, held, for this run.

    Args:
        ids: job -> id.
    """
    names = Variables.of(plan)
    body = [': > "$journal"']
    body += [f"taken {quote(job.name)} {ids[job.name]} && {names[job.name]}={ids[job.name]}" for job in plan.jobs]
    body += ["read_back", *_read_back_lines(plan, names, after), "commit"]
    return _transaction(run, body)


def settle_script(run: Run) -> str:
    """A script that ends what a submission script has left: it prints ``submitted`` or ``taken back``, then jobs."""
    return f"{WITHOUT_HABITS}\nrun={quote(run.at)}{_FIND}{_SETTLE}"


@dataclass(frozen=True)
class Variables:
    """Names of shell variables that hold the ids of jobs."""

    of_jobs: Mapping[str, str]

    @classmethod
    def of(cls, plan: Plan) -> Variables:
        """A name for each job, readable and no other job's: ``$id_my_exp_sft_0``."""
        names: dict[str, str] = {}
        for job in plan.jobs:
            plain = "id_" + re.sub(r"\W", "_", job.name, flags=re.ASCII)
            name, number = plain, 1
            while name in names.values():
                number += 1
                name = f"{plain}__{number}"
            names[job.name] = name
        return cls(names)

    def __getitem__(self, job: str) -> str:
        return self.of_jobs[job]

    def values(self) -> dict[str, str]:
        """Job -> ``$name``, for places where an id stands."""
        return {job: f"${name}" for job, name in self.of_jobs.items()}


def sbatch_words(job: Job, names: Variables, cluster: ClusterConfig, after: tuple[str, ...]) -> str:
    """The call of sbatch for a job, as shell; ids that are known only later are variables."""
    # All of an environment in which there is next to nothing.
    words = ["sbatch", "--parsable", "--hold", "--export=ALL"]
    waits = dependency(job, names.values(), after)
    if waits:
        words.append(f'"--dependency={waits}"')
        if cluster.kill_on_invalid_dep:
            # Cancels what can never start; safe because every segment repeats the edges of its chain.
            words.append("--kill-on-invalid-dep=yes")
    return " ".join([*words, f'"$run"/scripts/{quote(f"{job.name}.sh")}'])


def _transaction(run: Run, body: list[str]) -> str:
    return "\n".join(
        [
            "#!/bin/bash",
            f"# Queues the jobs of run {run}: all of them, or none.",
            "set -uo pipefail",
            f"run={quote(run.at)}",
            f'journal="$run/{JOURNAL}"',
            WITHOUT_HABITS,
            _FIND.strip("\n"),
            _QUEUE.strip("\n").replace("SYSTEM_PATH", SYSTEM_PATH).replace("FEW", " ".join(FEW)),
            # Read whole before it begins: a connection that breaks must not cut it short.
            "main() {",
            *(f"  {line}" for line in body),
            "}",
            "main",
            "",
        ]
    )


def _queue_line(job: Job, names: Variables, cluster: ClusterConfig, after: tuple[str, ...]) -> str:
    return f"queue {quote(job.name)} {sbatch_words(job, names, cluster, after)} && {names[job.name]}=$id"


def _read_back_lines(plan: Plan, names: Variables, after: tuple[str, ...]) -> list[str]:
    """What must be seen in the queue: nothing of the plan has run yet, so every edge within it must still be there."""
    lines = [f'waits_for "${names[job.name]}" "${names[edge.upstream]}"' for job in plan.jobs for edge in job.edges]
    # Slurm looks at the dependencies of held jobs only after their release, and takes a job that it has forgotten for
    # one that ended well: so these are looked up last.
    lines += [f"comes_after {before}" for before in after]
    return lines


def _setting(job: Job, plan: Plan, cluster: ClusterConfig, run: Run) -> Setting:
    return Setting(job=job, plan=plan, cluster=cluster, run=run)
