#!/bin/bash
#SBATCH --job-name=llm-my-exp-sft-0
#SBATCH --account=llm
#SBATCH --partition=batch
#SBATCH --qos=high
#SBATCH --time=0-03:45:00
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --exclusive
#SBATCH --output=/workspace/out/training-logs/my-exp-sft-0_%j_sbatch.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --export=NIL
#SBATCH --signal=B:USR1@300
#SBATCH --mail-type=FAIL
#SBATCH --mail-user=me@example.org

# Job my-exp-sft-0 of run my-exp/run-3.
set -uo pipefail
unset SLURM_EXPORT_ENV
export PATH="${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
export USER="${USER:-$(id -un)}"
export HOME="${HOME:-$(getent passwd "$USER" | cut -d: -f6)}"
run=/lustre/jobs/experiments/my-exp/run-3
job=my-exp-sft-0
rm -f "$run/exits/$job"
trap 'echo "$?" > "$run/exits/$job"' EXIT

checkpoints=/workspace/out/checkpoints
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
stop_chain() {
  echo "$1" | tee "$chain.stopped"
  cancel my-exp-convert-final-ckpt my-exp-sft-1
  exit 1
}
for note in "$run/chain/all.stopped" "$chain.stopped"; do
  if [ -e "$note" ]; then cat "$note"; exit 1; fi
done
rm -f "$run/verdicts/$job.json" "$run/save-now/$job"
end=$(squeue -h -j "$SLURM_JOB_ID" -o %e 2>/dev/null)
if [ -n "$end" ] && limit=$(date -d "$end" +%s 2>/dev/null); then
  export SKILLS_PIPE_DEADLINE="$limit"
fi
before=$(latest_step)

export SUBMITIT_EXECUTOR=slurm
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi
interrupted=
trap 'touch "$run/save-now/$job"; interrupted=1' USR1
terminated=
trap 'interrupted=1; terminated=1' TERM
(
  if [ -r "$run/secrets.env" ]; then . "$run/secrets.env"; fi
  export PYTHONUNBUFFERED=1
  export HF_HOME='/workspace/hf home'
  export SKILLS_PIPE_IDENTITY_FILE=/lustre/jobs/experiments/my-exp/run-3/identities/sft.json
  export SKILLS_PIPE_PROGRESS_FILE=/lustre/jobs/experiments/my-exp/run-3/progress/my-exp-sft-0.json
  export SKILLS_PIPE_VERDICT_FILE=/lustre/jobs/experiments/my-exp/run-3/verdicts/my-exp-sft-0.json
  export SKILLS_PIPE_SAVE_NOW_FILE=/lustre/jobs/experiments/my-exp/run-3/save-now/my-exp-sft-0
  export PYTHONPATH=/lustre/jobs/code/0123abcd"${PYTHONPATH:+:$PYTHONPATH}"
  export PATH=PYTHON_BIN:"$PATH"
  exec srun --export=ALL --nodes=2 --ntasks=16 --ntasks-per-node=8 --kill-on-bad-exit=0 --wait=60 --output=/workspace/out/training-logs/main_my-exp-sft-0_%j_srun.log --open-mode=append --chdir=/lustre/jobs/code/0123abcd python -m skills_pipe.training.sft '++logger.wandb.name=it'"'"'s "quoted" $HOME' '++data.x=[1, 2]'
) &
while :; do
  interrupted=
  wait $!
  code=$?
  if [ -z "$interrupted" ]; then break; fi
done

verdict=$(sed -n 's/^  "outcome": "\([a-z]*\)",*$/\1/p' "$run/verdicts/$job.json" 2>/dev/null)
if [ "$verdict" = complete ]; then
  cancel my-exp-sft-1
  exit 0
fi
if [ "$verdict" = failed ]; then stop_chain "$job cannot go on"; fi
if [ -n "$terminated" ] && [ "$(date +%s)" -lt "${limit:-9999999999}" ]; then
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
