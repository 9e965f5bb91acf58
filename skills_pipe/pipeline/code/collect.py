"""What is left behind on a cluster and not needed any more: code that no run uses, secrets of runs that are over."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from skills_pipe.errors import StoreError
from skills_pipe.pipeline.code.digest import HASH_LENGTH
from skills_pipe.pipeline.code.package import FOLDER
from skills_pipe.pipeline.code.record import read_record
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.records.store import Run, RunStore
from skills_pipe.pipeline.scripts.notify import WEBHOOK
from skills_pipe.pipeline.scripts.setting import SECRETS
from skills_pipe.pipeline.transport.base import Transport

_ASIDE = ".removed-"
_SECRET = (SECRETS, WEBHOOK)
"""Files in the folder of a run that nobody else should see."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """A folder of code on the cluster.

    Attributes:
        name: its hash, or that and an ending for one that was never finished.
        size: bytes.
        used_at: Unix time of the last submission that used it.
    """

    name: str
    size: int
    used_at: float


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """What can go.

    Attributes:
        code: code that no run needs.
        secrets: runs that are over, whose secrets are still there.
        kept: code that stays.
        before: Unix time; what was used later is not touched.
    """

    code: tuple[Left, ...]
    secrets: tuple[Run, ...]
    kept: tuple[Left, ...]
    before: float


def find_garbage(store: RunStore, job_dir: str, transport: Transport, *, before: float) -> Garbage:
    """What no run needs: it is over, and was submitted earlier than ``before``."""
    needed: set[str] = set()
    over: list[Run] = []
    for run in store.all():
        record = run.submission
        if record is None or record.submitted_at >= before or _is_live(run):
            needed |= _code_of(run)
        else:
            over.append(run)
    left = _list(f"{job_dir}/{FOLDER}", transport)
    code = tuple(item for item in left if item.used_at < before and item.name not in needed)
    return Garbage(
        code=code,
        secrets=_with_secrets(over, transport),
        kept=tuple(item for item in left if item not in code),
        before=before,
    )


def remove(garbage: Garbage, job_dir: str, transport: Transport) -> None:
    """Remove it, but for code that somebody has come to use in the meantime.

    Code is renamed first and looked at again: a submission marks code as used before it looks whether it is there.
    """
    lines = [f"cd {shlex.quote(f'{job_dir}/{FOLDER}')} || exit 0", f"before={int(garbage.before)}"]
    for item in garbage.code:
        lines += [
            f"name={shlex.quote(item.name)}",
            f'if mv --no-target-directory "$name" "{_ASIDE}$name" 2> /dev/null; then',
            f'  if [ "$(stat -c %Y "{_ASIDE}$name")" -ge "$before" ]; then',
            f'    mv --no-target-directory "{_ASIDE}$name" "$name"',
            "  else",
            f'    chmod -R u+w "{_ASIDE}$name"; rm -rf "{_ASIDE}$name"',
            "  fi",
            "fi",
        ]
    _bash(lines, transport)
    files = [f"{run.at}/{name}" for run in garbage.secrets for name in _SECRET]
    # Emptied, not removed: what mounts something in its place finds it.
    _bash([f"[ ! -e {shlex.quote(file)} ] || : > {shlex.quote(file)}" for file in files], transport)


def _code_of(run: Run) -> set[str]:
    run.refresh()
    record = read_record(run.folder)
    return {str(record["hash"])} if record else set()


def _is_live(run: Run) -> bool:
    """Whether jobs of a run still run or wait; while nobody can tell, they do."""
    try:
        return any(not status.state.ended for status in statuses_of(run).values())
    except StoreError:
        return True


def _with_secrets(runs: Iterable[Run], transport: Transport) -> tuple[Run, ...]:
    by_path = {f"{run.at}/{name}": run for run in runs for name in _SECRET}
    if not by_path:
        return ()
    told = _bash([f"[ -s {shlex.quote(path)} ] && echo {shlex.quote(path)}" for path in by_path] + ["true"], transport)
    return tuple(dict.fromkeys(by_path[path] for path in told.splitlines() if path in by_path))


def _list(folder: str, transport: Transport) -> list[Left]:
    """All code on the cluster, and what became of unpacking that was cut short."""
    pattern = "?" * HASH_LENGTH
    told = _bash(
        [
            f"cd {shlex.quote(folder)} 2> /dev/null || exit 0",
            f"for name in {pattern} {pattern}.* {_ASIDE}*; do",
            '  if [ -d "$name" ]; then',
            '    printf "%s\\t%s\\t%s\\n" "$(du -sb "$name" | cut -f 1)" "$(stat -c %Y "$name")" "$name"',
            "  fi",
            "done",
        ],
        transport,
    )
    rows = (line.split("\t", 2) for line in told.splitlines())
    return [Left(name=name, size=int(size), used_at=float(used_at)) for size, used_at, name in rows]


def _bash(lines: list[str], transport: Transport) -> str:
    """What a script prints.

    Raises:
        StoreError: it fails.
    """
    answer = transport.run(["bash", "-s"], stdin="\n".join(lines) + "\n")
    if not answer.ok:
        raise StoreError(f"the folder of the code cannot be looked at: {' '.join(answer.err.split())}")
    return answer.out
