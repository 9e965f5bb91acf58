#!/bin/bash
#SBATCH --job-name=llm-my-exp-gsm8k
#SBATCH --account=llm
#SBATCH --partition=batch
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=3
#SBATCH --gpus-per-node=8
#SBATCH --output=/lustre/lab/out/convert-final-ckpt/my-exp-gsm8k_%j_sbatch.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --mail-type=FAIL
#SBATCH --mail-user=me@example.org
#SBATCH --reservation=spring
#SBATCH --comment='a b'

# Job my-exp-gsm8k of run my-exp/run-3.
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
job=my-exp-gsm8k
rm -f "$run/exits/$job"
trap 'echo "$?" > "$run/exits/$job"' EXIT
trap 'exit 143' TERM
mkdir -p "$run/code"

start="${SLURM_RESTART_COUNT:-0}"
times="$run/events/$job-$SLURM_JOB_ID"
note_time() {
  printf '{"time": %s, "subject": %s, "kind": "%s", "details": {"start": %s}}\n' \
    "$2" '"my-exp-gsm8k"' "$1" "$3" >> "$times-$start.jsonl"
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
note="$run/exits/$job.reason"
rm -f "$note"
host=127.0.0.1
next_port=$((10000 + ${SLURM_JOB_ID:-$$} * 16 % 20000))
# Free: no connection of this node has it, nobody answers there, and, where there is a Python, it can be bound: a server
# may bind its port long before it listens.
free_port() {
  while :; do
    port=$next_port
    next_port=$((next_port + 1))
    if grep -q -E "^ *[0-9]+: [0-9A-F]+:$(printf %04X "$port") " /proc/net/tcp /proc/net/tcp6 2>/dev/null; then
      continue
    fi
    if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then continue; fi
    if bindable "$port"; then return; fi
  done
}
bindable() {
  if ! python3 -c '' 2>/dev/null; then return 0; fi
  python3 -c 'import socket, sys; socket.socket().bind(("", int(sys.argv[1])))' "$1" 2>/dev/null
}
free_port; export SKILLS_PIPE_SERVER_PORT="$port"
export SKILLS_PIPE_SERVER_HOST="$host"
export SKILLS_PIPE_SERVER_ADDRESS="http://$host:$port"
free_port; export NEMO_SKILLS_SANDBOX_PORT="$port"
export NEMO_SKILLS_SANDBOX_HOST="$host"
export NEMO_SKILLS_SANDBOX_ADDRESS="http://$host:$port"
names=(main server sandbox)
services=(0 1 1)
member_0() {
  unset SLURM_GPUS_PER_NODE
  if [ -r "$run/secrets.env" ]; then . "$run/secrets.env"; fi
  export PYTHONUNBUFFERED=1
  export HF_HOME='/workspace/hf home'
  export SKILLS_PIPE_IDENTITY_FILE=/nemo_run/identities/convert.json
  export SKILLS_PIPE_PROGRESS_FILE=/nemo_run/progress/my-exp-gsm8k.json
  export SKILLS_PIPE_WARNINGS_FILE=/nemo_run/warnings/my-exp-gsm8k.json
  export PYTHONPATH=/nemo_run/code"${PYTHONPATH:+:$PYTHONPATH}"
  exec srun --export=ALL --nodes=1 --ntasks=1 --ntasks-per-node=1 --overlap --job-name=main --gres=none --kill-on-bad-exit=1 --wait=60 --output=/lustre/lab/out/convert-final-ckpt/main_my-exp-gsm8k_%j_srun.log --open-mode=append --container-image=/images/nemo-skills.sqsh --container-mounts=/lustre/lab:/workspace,/lustre/data:/data:ro,/lustre/jobs/experiments/my-exp/run-3:/nemo_run,/dev/null:/nemo_run/secrets.env:ro,/lustre/jobs/code/0123abcd:/nemo_run/code:ro --container-workdir=/nemo_run/code --no-container-mount-home --container-env=PYTHONUNBUFFERED,HF_HOME,SKILLS_PIPE_IDENTITY_FILE,SKILLS_PIPE_PROGRESS_FILE,SKILLS_PIPE_WARNINGS_FILE,SKILLS_PIPE_SERVER_PORT,SKILLS_PIPE_SERVER_HOST,SKILLS_PIPE_SERVER_ADDRESS,NEMO_SKILLS_SANDBOX_PORT,NEMO_SKILLS_SANDBOX_HOST,NEMO_SKILLS_SANDBOX_ADDRESS,PYTHONPATH python -m skills_pipe.evaluation.evaluate --benchmark=gsm8k
}
member_1() {
  unset SLURM_GPUS_PER_NODE
  if [ -r "$run/secrets.env" ]; then . "$run/secrets.env"; fi
  export PYTHONUNBUFFERED=1
  export HF_HOME='/workspace/hf home'
  export PYTHONPATH=/nemo_run/code"${PYTHONPATH:+:$PYTHONPATH}"
  exec srun --export=ALL --nodes=1 --ntasks=1 --ntasks-per-node=1 --overlap --job-name=server --gpus-per-node=8 --kill-on-bad-exit=1 --wait=60 --output=/lustre/lab/out/convert-final-ckpt/server_my-exp-gsm8k_%j_srun.log --open-mode=append --container-image=/images/vllm.sqsh --container-mounts=/lustre/lab:/workspace,/lustre/data:/data:ro,/lustre/jobs/experiments/my-exp/run-3:/nemo_run,/dev/null:/nemo_run/secrets.env:ro,/lustre/jobs/code/0123abcd:/nemo_run/code:ro --container-workdir=/nemo_run/code --no-container-mount-home --container-env=PYTHONUNBUFFERED,HF_HOME,SKILLS_PIPE_SERVER_PORT,SKILLS_PIPE_SERVER_HOST,SKILLS_PIPE_SERVER_ADDRESS,NEMO_SKILLS_SANDBOX_PORT,NEMO_SKILLS_SANDBOX_HOST,NEMO_SKILLS_SANDBOX_ADDRESS,PYTHONPATH bash -c 'exec "$@" --port "$SKILLS_PIPE_SERVER_PORT"' server vllm serve /workspace/out/hf
}
member_2() {
  unset SLURM_GPUS_PER_NODE
  export PYTHONUNBUFFERED=1
  export HF_HOME='/workspace/hf home'
  exec srun --export=ALL --nodes=1 --ntasks=1 --ntasks-per-node=1 --overlap --job-name=sandbox --gres=none --kill-on-bad-exit=1 --wait=60 --output=/lustre/lab/out/convert-final-ckpt/sandbox_my-exp-gsm8k_%j_srun.log --open-mode=append --container-image=/images/sandbox.sqsh --no-container-mount-home --container-env=PYTHONUNBUFFERED,HF_HOME,SKILLS_PIPE_SERVER_PORT,SKILLS_PIPE_SERVER_HOST,SKILLS_PIPE_SERVER_ADDRESS,NEMO_SKILLS_SANDBOX_PORT,NEMO_SKILLS_SANDBOX_HOST,NEMO_SKILLS_SANDBOX_ADDRESS /start-with-nginx.sh
}
pids=()
codes=()
answered=()
failed=
stopping=
# In a process group of its own: a signal reaches all that it has started.
start() {
  set -m
  ("member_$1") </dev/null &
  pids[$1]=$!
  set +m
}
# A short sleep in the background: a trap runs only while bash waits.
pause() {
  sleep 0.5 &
  wait $!
  look
}
look() {
  local i
  for i in "${!pids[@]}"; do
    if [ -z "${codes[i]:-}" ] && ! kill -0 "${pids[i]}" 2>/dev/null; then
      wait "${pids[i]}"
      codes[i]=$?
      if [ -z "$failed$stopping" ]; then judge "$i"; fi
    fi
  done
}
judge() {
  local code=${codes[$1]} name=${names[$1]}
  if [ "${services[$1]}" = 0 ]; then
    # The first one is the job itself: its exit code says it all.
    if [ "$code" -ne 0 ] && [ "$1" -eq 0 ]; then
      failed=$code
    elif [ "$code" -ne 0 ]; then
      blame "$code" "$name ended with exit code $code"
    fi
  elif [ -n "$terminated" ]; then
    return
  elif [ "$code" -ne 0 ]; then
    blame "$code" "$name died with exit code $code"
  elif [ "${answered[$1]:-}" = no ]; then
    blame 1 "$name ended before it answered"
  fi
}
blame() {
  failed=$1
  echo "$2" | tee "$note"
}
# await INDEX PORT PATH SECONDS
await() {
  local deadline=$((SECONDS + $4))
  answered[$1]=no
  while [ -z "$failed$terminated" ]; do
    if answers "$2" "$3"; then
      answered[$1]=yes
      echo "${names[$1]} answers at http://$host:$2"
    elif [ "$SECONDS" -ge "$deadline" ]; then
      blame 1 "${names[$1]} did not answer at http://$host:$2$3 within $4 seconds"
    fi
    if [ "${answered[$1]}" = yes ]; then return; fi
    pause
  done
}
# Whether a GET is answered with status 200.
answers() {
  (
    exec 3<>"/dev/tcp/$host/$1" || exit 1
    printf 'GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$2" "$host:$1" >&3
    read -r -t 5 _ status _ <&3 && [ "$status" = 200 ] || exit 1
    # To the end: some servers complain of one who hangs up.
    while read -r -t 1 _ <&3; do :; done
    true
  ) 2>/dev/null
}
# left WHAT: whether a part still runs, of all or of those that are no service.
left() {
  local i
  for i in "${!pids[@]}"; do
    if [ -z "${codes[i]:-}" ] && { [ "$1" = all ] || [ "${services[i]}" = 0 ]; }; then return 0; fi
  done
  return 1
}
# tell WHAT SIGNAL: a signal to the same.
tell() {
  local i
  for i in "${!pids[@]}"; do
    if [ -z "${codes[i]:-}" ] && { [ "$1" = all ] || [ "${services[i]}" = 0 ]; }; then
      send "$i" "$2"
    fi
  done
}
# TERM to all that still run, KILL after a while.
stop_all() {
  local deadline=$((SECONDS + 30))
  stopping=1
  tell all TERM
  while left all && [ "$SECONDS" -lt "$deadline" ]; do pause; done
  tell all KILL
  while left all; do pause; done
}
send() {
  local step
  step=$(squeue -h -s -j "$SLURM_JOB_ID" -o '%i %j' 2>/dev/null | sed -n "s/ ${names[$1]}$//p")
  if [ "$2" = TERM ] && [ -n "$step" ]; then
    scancel --signal=TERM "$step" 2>/dev/null
  else
    kill -TERM -- "-${pids[$1]}" 2>/dev/null
  fi
}
trap ':' USR1
terminated=
trap 'terminated=1; on_term' TERM
start 1
start 2
await 1 "$SKILLS_PIPE_SERVER_PORT" /health 3600
await 2 "$NEMO_SKILLS_SANDBOX_PORT" /health 3600
if [ -z "$failed$terminated" ]; then
  start 0
fi
while [ -z "$failed" ] && left work; do pause; done
stop_all
code="${failed:-0}"
if [ "$code" -eq 0 ] && [ -n "$terminated" ] && [ -z "${pids[0]:-}" ]; then code=143; fi

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
