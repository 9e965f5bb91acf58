"""``ns gc``: remove what runs have left behind on a cluster and nobody needs any more."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.code.collect import Garbage, Left, find_garbage, remove
from skills_pipe.pipeline.console.command import Command as LauncherCommand
from skills_pipe.pipeline.options.declaration import option, switch
from skills_pipe.pipeline.options.records import RecordOptions
from skills_pipe.pipeline.transport.reach import transport_of

_DAY_SECONDS = 86400
_YOUNG_SECONDS = 3600
"""What is younger may be that of a submission on its way."""


@dataclass(frozen=True, kw_only=True)
class GcOptions(RecordOptions):
    """What may go."""

    keep_days: int = option(30, help="keep what runs of the last days have used, whether they are over or not")
    dry_run: bool = switch(help="say what would be removed, and remove nothing")
    yes: bool = switch(help="do not ask")


def run(options: GcOptions, extras: tuple[str, ...]) -> int:
    """Find it, show it, ask, remove it."""
    if options.keep_days < 0:
        raise OptionError(f"--keep_days is {options.keep_days}", fix="set it to 0 or more")
    cluster = options.load()
    transport = transport_of(cluster)
    before = time.time() - max(options.keep_days * _DAY_SECONDS, _YOUNG_SECONDS)
    found = find_garbage(options.store, cluster.job_dir, transport, before=before)
    _show(found)
    if options.dry_run or not (found.code or found.secrets):
        return 0
    if not options.yes and not _agreed():
        print("nothing was removed")
        return 1
    remove(found, cluster.job_dir, transport)
    print("removed")
    return 0


COMMAND = LauncherCommand(options=GcOptions, run=run)


def _show(found: Garbage) -> None:
    for item in found.code:
        print(f"code {item.name}  {_size([item])}  last used {time.strftime('%Y-%m-%d', time.localtime(item.used_at))}")
    for run in found.secrets:
        print(f"secrets of {run}")
    kept = f"{len(found.kept)} stay ({_size(found.kept)})"
    print(f"archives of code: {len(found.code)} can go ({_size(found.code)}), {kept}")


def _size(items: list[Left] | tuple[Left, ...]) -> str:
    return f"{sum(item.size for item in items) / 2**20:.1f} MB"


def _agreed() -> bool:
    """Whether the user wants it.

    Raises:
        OptionError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise OptionError("there is nobody to ask whether to remove it", fix="add --yes, or --dry_run to look only")
    return input("Remove all of it? [y/N] ").strip().lower() in ("y", "yes")
