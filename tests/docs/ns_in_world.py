"""``ns`` as the documents' commands find it: on this machine itself; for a Slurm cluster as a dry run.

A dry run in a process of its own knows nothing of the runs that ``--run_after`` names, so those that went before in the
same document are planned again first.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from skills_pipe.pipeline.cli import main

HISTORY = "NS_HISTORY"
"""Variable with the path of a file: the dry runs so far, one JSON list of words per line."""

GROUPS = ("data", "nemo_rl")
"""First words of the names of commands that have two."""

AS_THEY_ARE = ("check", "setup")
"""Commands that submit nothing."""

NO_SLURM = "Slurm does not answer here"
"""What no login node says."""

OF_RECORDS = ("status", "logs", "cancel")
"""Commands on what is recorded: nothing runs on Slurm here, so they get a run on this machine of the same name."""


def run(words: Sequence[str]) -> int:
    """Exit status of ``ns`` with these words."""
    clusters = [word for word in words if word.startswith("--cluster=")]
    if not clusters or words[0] in AS_THEY_ARE:
        return main(words)
    if words[0] in OF_RECORDS:
        return main([word for word in words if word not in clusters])
    return _dry_run(list(words))


def _dry_run(words: list[str]) -> int:
    history = Path(os.environ[HISTORY])
    earlier = [json.loads(line) for line in history.read_text().splitlines()] if history.exists() else []
    with contextlib.redirect_stdout(io.StringIO()):
        for before in earlier:
            main(before)
    at = 2 if words[0] in GROUPS else 1
    # Right behind the name: what follows the first word of a command belongs to that command.
    dry = [*words[:at], "--dry_run", *(word for word in words[at:] if word != "--dry_run")]
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        status = main(dry)
    sys.stdout.writelines(line for line in shown.getvalue().splitlines(keepends=True) if NO_SLURM not in line)
    if status == 0:
        with open(history, "a") as file:
            file.write(json.dumps(dry) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
