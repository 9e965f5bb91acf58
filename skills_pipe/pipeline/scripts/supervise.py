"""Several commands of one job as shell: ports, readiness, who ended and how, and nothing left behind.

The lines run in the script of the job, outside containers, on its first node; they need bash, grep, sed and sleep.
The same lines serve Slurm, where a part is one ``srun``, and this machine, where it is the program itself.

- A part that ends badly takes the others down, and its name and exit code go to the note of the job.
- A service that ends well is no failure, unless somebody still waits for it to answer.
- When all that is no service has ended, services get TERM, and KILL after a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skills_pipe.pipeline.plan import Member
from skills_pipe.pipeline.scripts.render import quote

FIRST_PORT, PORTS, PORTS_PER_JOB = 10000, 20000, 16
"""Ports below those that Linux gives to outgoing connections. Jobs that run at once begin apart, by their ids."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One command as the script runs it.

    Attributes:
        name: what notes call it.
        lines: shell that runs it in a subshell of its own; the last one is the command, so that it can end by ``exec``.
        member: the command in the plan: whether it is a service, its ports, how it is told to be ready.
    """

    name: str
    lines: tuple[str, ...]
    member: Member


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How parts are watched over.

    Attributes:
        note: shell word for the file that names the part that failed.
        host: shell word for the name of the first node.
        on_warning: shell to run when the scheduler says that time is short.
        on_term: shell to run when the job is told to end.
        grace_seconds: from TERM to KILL for parts that are no longer needed.
        steps: parts are steps of Slurm. They get TERM from Slurm when their job does; otherwise it is passed on.
    """

    note: str
    host: str = "127.0.0.1"
    on_warning: str = ""
    on_term: str = ""
    grace_seconds: int = 30
    steps: bool = False


def supervise(parts: Sequence[Part], watch: Watch) -> list[str]:
    """Lines that run ``parts``, and leave the exit code of the job in ``$code``; ``$terminated`` is set after a TERM.

    The code is that of the part that failed first, else 0.
    """
    gated = [index for index, part in enumerate(parts) if part.member.ready]
    return [
        f"note={watch.note}",
        'rm -f "$note"',
        *port_lines([part.member for part in parts], watch.host),
        *_members(parts),
        *_FUNCTIONS.strip("\n").replace("GRACE", str(watch.grace_seconds)).splitlines(),
        *(_SEND_TO_STEP if watch.steps else _SEND).strip("\n").splitlines(),
        f"trap '{watch.on_warning or ':'}' USR1",
        "terminated=",
        f"trap '{'; '.join(['terminated=1', *_on_term(watch)])}' TERM",
        *(f"start {index}" for index, part in enumerate(parts) if part.member.service),
        *(f"await {index} {_ready_words(parts[index].member)}" for index in gated),
        'if [ -z "$failed$terminated" ]; then',
        *(f"  start {index}" for index, part in enumerate(parts) if not part.member.service),
        "fi",
        'while [ -z "$failed" ] && left work; do pause; done',
        "stop_all",
        'code="${failed:-0}"',
        # Stopped before anything was started: that is no success.
        'if [ "$code" -eq 0 ] && [ -n "$terminated" ] && [ -z "${pids[0]:-}" ]; then code=143; fi',
    ]


def _on_term(watch: Watch) -> list[str]:
    passed_on = [] if watch.steps else ["tell work TERM"]
    return [*passed_on, *([watch.on_term] if watch.on_term else [])]


def port_lines(members: Sequence[Member], host: str) -> list[str]:
    """Lines that choose a free port of the first node for each variable ``X_PORT``, and set ``X_HOST`` and
    ``X_ADDRESS`` with it."""
    names = [name for member in members for name in member.ports]
    if not names:
        return []
    lines = [f"host={host}", *_PORT_FUNCTION.strip("\n").splitlines()]
    for name in dict.fromkeys(names):
        lines += [f'free_port; export {name}="$port"', *(f"export {line}" for line in _derived(name))]
    return lines


def port_variables(members: Sequence[Member]) -> tuple[str, ...]:
    """Names of all variables that :func:`port_lines` sets."""
    names = dict.fromkeys(name for member in members for name in member.ports)
    return tuple(variable for name in names for variable in (name, *(line.split("=")[0] for line in _derived(name))))


def _derived(name: str) -> tuple[str, ...]:
    stem = name.removesuffix("_PORT")
    return (f'{stem}_HOST="$host"', f'{stem}_ADDRESS="http://$host:$port"')


def _members(parts: Sequence[Part]) -> list[str]:
    lines = [f"names=({' '.join(quote(part.name) for part in parts)})"]
    lines.append(f"services=({' '.join('1' if part.member.service else '0' for part in parts)})")
    for index, part in enumerate(parts):
        lines += [f"member_{index}() {{", *(f"  {line}" for line in part.lines), "}"]
    return lines


def _ready_words(member: Member) -> str:
    return f'"${member.ports[0]}" {quote(member.ready or "/")} {member.ready_seconds}'


_PORT_FUNCTION = f"""
next_port=$(({FIRST_PORT} + ${{SLURM_JOB_ID:-$$}} * {PORTS_PER_JOB} % {PORTS}))
# Free: no connection of this node has it, nobody answers there, and, where there is a Python, it can be bound: a server
# may bind its port long before it listens.
free_port() {{
  while :; do
    port=$next_port
    next_port=$((next_port + 1))
    if grep -q -E "^ *[0-9]+: [0-9A-F]+:$(printf %04X "$port") " /proc/net/tcp /proc/net/tcp6 2>/dev/null; then
      continue
    fi
    if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then continue; fi
    if bindable "$port"; then return; fi
  done
}}
bindable() {{
  if ! python3 -c '' 2>/dev/null; then return 0; fi
  python3 -c 'import socket, sys; socket.socket().bind(("", int(sys.argv[1])))' "$1" 2>/dev/null
}}
"""

_FUNCTIONS = """
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
    printf 'GET %s HTTP/1.1\\r\\nHost: %s\\r\\nConnection: close\\r\\n\\r\\n' "$2" "$host:$1" >&3
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
  local deadline=$((SECONDS + GRACE))
  stopping=1
  tell all TERM
  while left all && [ "$SECONDS" -lt "$deadline" ]; do pause; done
  tell all KILL
  while left all; do pause; done
}
"""

_SEND = """
send() { kill "-$2" -- "-${pids[$1]}" 2>/dev/null; }
"""

# srun takes a TERM for a KILL to its tasks; a signal for them goes through Slurm, by the name of their step.
_SEND_TO_STEP = """
send() {
  local step
  step=$(squeue -h -s -j "$SLURM_JOB_ID" -o '%i %j' 2>/dev/null | sed -n "s/ ${names[$1]}$//p")
  if [ "$2" = TERM ] && [ -n "$step" ]; then
    scancel --signal=TERM "$step" 2>/dev/null
  else
    kill -TERM -- "-${pids[$1]}" 2>/dev/null
  fi
}
"""
