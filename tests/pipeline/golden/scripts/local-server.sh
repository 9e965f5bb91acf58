#!/bin/bash
# Job my-exp-gsm8k of run my-exp/run-3.
set -uo pipefail
run=/home/me/.skills_pipe/experiments/my-exp/run-3
job=my-exp-gsm8k
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
names=(main server)
services=(0 1)
member_0() {
  set -e
  export PYTHONUNBUFFERED=1
  export HF_HOME='/data/hf home'
  export SKILLS_PIPE_IDENTITY_FILE=/home/me/.skills_pipe/experiments/my-exp/run-3/identities/convert.json
  export SKILLS_PIPE_PROGRESS_FILE=/home/me/.skills_pipe/experiments/my-exp/run-3/progress/my-exp-gsm8k.json
  export SKILLS_PIPE_WARNINGS_FILE=/home/me/.skills_pipe/experiments/my-exp/run-3/warnings/my-exp-gsm8k.json
  export PATH=/venv/bin:"$PATH"
  export CUDA_VISIBLE_DEVICES=
  cd '/home/me/my project'
  exec python -m skills_pipe.evaluation.evaluate --benchmark=gsm8k
}
member_1() {
  set -e
  export PYTHONUNBUFFERED=1
  export HF_HOME='/data/hf home'
  export PATH=/venv/bin:"$PATH"
  cd '/home/me/my project'
  exec bash -c 'exec "$@" --port "$SKILLS_PIPE_SERVER_PORT"' server vllm serve /workspace/out/hf >> /workspace/out/convert-final-ckpt/server_my-exp-gsm8k_local-1.log 2>&1
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
send() { kill "-$2" -- "-${pids[$1]}" 2>/dev/null; }
trap ':' USR1
terminated=
trap 'terminated=1; tell work TERM' TERM
start 1
await 1 "$SKILLS_PIPE_SERVER_PORT" /health 3600
if [ -z "$failed$terminated" ]; then
  start 0
fi
while [ -z "$failed" ] && left work; do pause; done
stop_all
code="${failed:-0}"
if [ "$code" -eq 0 ] && [ -n "$terminated" ] && [ -z "${pids[0]:-}" ]; then code=143; fi
exit "$code"
