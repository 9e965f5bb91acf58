#!/bin/bash
#SBATCH --job-name=llm-my-exp-convert-final-ckpt
#SBATCH --account=llm
#SBATCH --partition=cpu
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --output=/lustre/lab/out/convert-final-ckpt/my-exp-convert-final-ckpt_%j_sbatch.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --mail-type=FAIL
#SBATCH --mail-user=me@example.org
#SBATCH --reservation=spring
#SBATCH --comment='a b'

# Job my-exp-convert-final-ckpt of run my-exp/run-3.
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
job=my-exp-convert-final-ckpt
rm -f "$run/exits/$job"
trap 'echo "$?" > "$run/exits/$job"' EXIT
trap 'exit 143' TERM
mkdir -p "$run/code"

start="${SLURM_RESTART_COUNT:-0}"
times="$run/events/$job-$SLURM_JOB_ID"
note_time() {
  printf '{"time": %s, "subject": %s, "kind": "%s", "details": {"start": %s}}\n' \
    "$2" '"my-exp-convert-final-ckpt"' "$1" "$3" >> "$times-$start.jsonl"
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

export SUBMITIT_EXECUTOR=slurm
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi
interrupted=
trap 'interrupted=1' USR1
terminated=
trap 'interrupted=1; terminated=1; on_term' TERM
(
  if [ -r "$run/secrets.env" ]; then . "$run/secrets.env"; fi
  export PYTHONUNBUFFERED=1
  export HF_HOME='/workspace/hf home'
  export SKILLS_PIPE_IDENTITY_FILE=/nemo_run/identities/convert.json
  export SKILLS_PIPE_PROGRESS_FILE=/nemo_run/progress/my-exp-convert-final-ckpt.json
  export SKILLS_PIPE_WARNINGS_FILE=/nemo_run/warnings/my-exp-convert-final-ckpt.json
  export PYTHONPATH=/nemo_run/code"${PYTHONPATH:+:$PYTHONPATH}"
  exec srun --export=ALL --nodes=1 --ntasks=1 --ntasks-per-node=1 --kill-on-bad-exit=1 --wait=60 --output=/lustre/lab/out/convert-final-ckpt/main_my-exp-convert-final-ckpt_%j_srun.log --open-mode=append --container-image=/images/nemo-skills.sqsh --container-mounts=/lustre/lab:/workspace,/lustre/data:/data:ro,/lustre/jobs/experiments/my-exp/run-3:/nemo_run,/dev/null:/nemo_run/secrets.env:ro,/lustre/jobs/code/0123abcd:/nemo_run/code:ro --container-workdir=/nemo_run/code --no-container-mount-home --container-env=PYTHONUNBUFFERED,HF_HOME,SKILLS_PIPE_IDENTITY_FILE,SKILLS_PIPE_PROGRESS_FILE,SKILLS_PIPE_WARNINGS_FILE,PYTHONPATH python -m skills_pipe.training.checkpoint.export --hf_ckpt_path=/workspace/out/hf
) &
while :; do
  interrupted=
  wait $!
  code=$?
  if [ -z "$interrupted" ]; then break; fi
done

output=/lustre/lab/out/hf
sealed() {
  local manifest=$output.manifest.json digest
  if [ -d "$output" ]; then manifest=$output/manifest.json; fi
  digest=$(sed -n 's/^  "digest": "\([0-9a-f]*\)",*$/\1/p' "$run/identities/"convert.json)
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
