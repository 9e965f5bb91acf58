#!/bin/bash
#SBATCH --job-name=llm-my-exp-sft-0
#SBATCH --account=llm
#SBATCH --partition=batch
#SBATCH --qos=high
#SBATCH --time=0-03:45:00
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --output=/lustre/lab/out/training-logs/my-exp-sft-0_%j_sbatch.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --mail-type=FAIL
#SBATCH --mail-user=me@example.org
#SBATCH --reservation=spring
#SBATCH --comment='a b'

# Job my-exp-sft-0 of run my-exp/run-3.
set -uo pipefail
# Where nobody has kept it from doing so, Slurm has read what the user's profile sets, tokens and all.
if [ -n "${SLURM_GET_USER_ENV:-}" ]; then
  unset -f $(compgen -A function)
  for name in $(compgen -e); do
    case "$name" in
      SLURM* | SPANK_* | PATH | HOME | USER | LOGNAME | SHELL | TMPDIR | TZ | LANG | LC_* | CUDA_VISIBLE_DEVICES | GPU_DEVICE_ORDINAL | ROCR_VISIBLE_DEVICES | ZE_AFFINITY_MASK | TORCHX_MAX_RETRIES) ;;
      *) unset "$name" ;;
    esac
  done
fi
unset SLURM_EXPORT_ENV
export PATH="${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
export USER="${USER:-$(id -un)}"
export HOME="${HOME:-$(unset HOME; echo ~)}"
run=/lustre/jobs/experiments/my-exp/run-3
job=my-exp-sft-0
rm -f "$run/exits/$job"
trap 'echo "$?" > "$run/exits/$job"' EXIT
trap 'exit 143' TERM
mkdir -p "$run/code"

start="${SLURM_RESTART_COUNT:-0}"
times="$run/events/$job-$SLURM_JOB_ID"
note_time() {
  printf '{"time": %s, "subject": %s, "kind": "%s", "details": {"start": %s}}\n' \
    "$2" '"my-exp-sft-0"' "$1" "$3" >> "$times-$start.jsonl"
}
ran_until_now() {
  note_time "ran to" "$(date +%s.%N)" "$start"
}
# A node that died could not say so: its last sign of life is the end of that start.
before="$((start - 1))"
if [ -e "$times-$before.jsonl" ] && ! grep -q "ran to" "$times-$before.jsonl"; then
  alive=$(stat -c %Y "$times-$before.jsonl" "$run/progress/$job.json" 2>/dev/null | sort -n | tail -n 1)
  note_time "ran to" "$alive" "$before"
fi
note_time "ran from" "$(date +%s.%N)" "$start"
# Taken over by jobs that have something to look after.
on_term() {
  ran_until_now
}

early=
trap 'early=1' USR1
checkpoints=/lustre/lab/out/checkpoints
chain=/lustre/jobs/experiments/my-exp/run-3/chain/sft
latest_step() {
  {
    echo -1
    for folder in "$checkpoints"/step_*; do [ -e "$folder/manifest.json" ] && echo "${folder##*_}"; done
  } | sort -n | tail -n 1
}
ids() {
  for name; do awk -F "\t" -v name="$name" '$1 == name { print $2 }' "$run/jobs.tsv"; done
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
stop_chain() {
  echo "$1" | tee "$chain.stopped.$job" && mv "$chain.stopped.$job" "$chain.stopped"
  cancel my-exp-convert-final-ckpt my-exp-sft-1
  exit "${2:-1}"
}
for note in "$run/chain/all.stopped" "$chain.stopped"; do
  if [ -e "$note" ]; then cat "$note"; exit 76; fi
done
rm -f "$run/verdicts/$job.json" "$run/save-now/$job"
if [ -n "$early" ]; then touch "$run/save-now/$job"; fi
limit=$(SLURM_TIME_FORMAT=%s squeue -h -j "$SLURM_JOB_ID" -o %e 2>/dev/null)
case "$limit" in "" | *[!0-9]*) ;; *) export SKILLS_PIPE_DEADLINE="$limit" ;; esac
before=$(latest_step)

export SUBMITIT_EXECUTOR=slurm
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi
interrupted=
trap 'touch "$run/save-now/$job"; interrupted=1' USR1
terminated=
trap 'interrupted=1; terminated=1; on_term' TERM
(
  if [ -r "$run/secrets.env" ]; then . "$run/secrets.env"; fi
  export PYTHONUNBUFFERED=1
  export HF_HOME='/workspace/hf home'
  export SKILLS_PIPE_IDENTITY_FILE=/nemo_run/identities/sft.json
  export SKILLS_PIPE_PROGRESS_FILE=/nemo_run/progress/my-exp-sft-0.json
  export SKILLS_PIPE_WARNINGS_FILE=/nemo_run/warnings/my-exp-sft-0.json
  export SKILLS_PIPE_VERDICT_FILE=/nemo_run/verdicts/my-exp-sft-0.json
  export SKILLS_PIPE_SAVE_NOW_FILE=/nemo_run/save-now/my-exp-sft-0
  export PYTHONPATH=/nemo_run/code"${PYTHONPATH:+:$PYTHONPATH}"
  exec srun --export=ALL --nodes=2 --ntasks=16 --ntasks-per-node=8 --kill-on-bad-exit=0 --wait=60 --output=/lustre/lab/out/training-logs/main_my-exp-sft-0_%j_srun.log --open-mode=append --container-image=/images/nemo-rl.sqsh --container-mounts=/lustre/lab:/workspace,/lustre/data:/data:ro,/lustre/jobs/experiments/my-exp/run-3:/nemo_run,/dev/null:/nemo_run/secrets.env:ro,/lustre/jobs/code/0123abcd:/nemo_run/code:ro --container-workdir=/nemo_run/code --no-container-mount-home --container-env=PYTHONUNBUFFERED,HF_HOME,SKILLS_PIPE_IDENTITY_FILE,SKILLS_PIPE_PROGRESS_FILE,SKILLS_PIPE_WARNINGS_FILE,SKILLS_PIPE_VERDICT_FILE,SKILLS_PIPE_SAVE_NOW_FILE,PYTHONPATH python -m skills_pipe.training.sft '++logger.wandb.name=it'"'"'s "quoted" $HOME' '++data.x=[1, 2]'
) &
while :; do
  interrupted=
  wait $!
  code=$?
  if [ -z "$interrupted" ]; then break; fi
done

ask_why
verdict=$(sed -n 's/^  "outcome": "\([a-z]*\)",*$/\1/p' "$run/verdicts/$job.json" 2>/dev/null)
if [ "$verdict" = complete ]; then
  cancel my-exp-sft-1
  exit 0
fi
if [ "$verdict" = failed ]; then stop_chain "$job cannot go on"; fi
if [ -e "$chain.stopped" ]; then stop_chain "$(cat "$chain.stopped")"; fi
if is_requeued; then exit 75; fi
if is_preempted; then again; fi
if [ -n "$terminated" ] && ! is_late; then
  :
elif [ "$(latest_step)" -gt "$before" ]; then
  rm -f "$chain.stalled"
elif [ -e "$chain.stalled" ]; then
  stop_chain "two jobs in a row made no new step"
else
  touch "$chain.stalled"
fi
if [ "$verdict" = continue ]; then exit 75; fi
if [ "$code" -eq 0 ]; then exit 1; fi
exit "$code"
