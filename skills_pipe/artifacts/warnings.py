"""What a job warns its user of, in a file that the launcher shows: what stands in a log alone is read too late."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from skills_pipe.artifacts.atomic import write_json
from skills_pipe.artifacts.names import ENV_WARNINGS


def publish_warnings(sentences: Iterable[str]) -> None:
    """Put ``sentences`` by rename where the launcher looks, in place of those of an earlier start of this job.

    Does nothing without a launcher. One process of a job calls it.
    """
    wanted = os.environ.get(ENV_WARNINGS)
    if not wanted:
        return
    path, told = Path(wanted), list(dict.fromkeys(sentences))
    if told:
        write_json(path, told)
    else:
        path.unlink(missing_ok=True)


def read_warnings(path: Path) -> tuple[str, ...]:
    """The sentences at ``path``; none where there is no such file, or another one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    return tuple(value) if isinstance(value, list) and all(isinstance(each, str) for each in value) else ()
