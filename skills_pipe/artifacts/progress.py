"""How far a running job is, in a file that the launcher can show while the job runs."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from skills_pipe.artifacts.names import ENV_PROGRESS


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One report.

    Attributes:
        done: units finished (steps, rows, prompts) of ``total``; ``total`` is 0 when it is not known.
        unit: what is counted, in the plural: ``steps``.
        note: a few words on the state: ``3 of 20 wrong``.
        updated_at: Unix time in seconds.
        eta_seconds: estimated seconds to the end, None when unknown.
        loss: training loss of the last step, in nats per token; None where nothing is trained.
        tokens_per_second: tokens trained on in a second, over all devices.
        checkpoint: step of the last checkpoint, from which the work would go on; None without one.
    """

    done: int
    total: int
    unit: str
    note: str = ""
    eta_seconds: float | None = None
    updated_at: float = 0.0
    loss: float | None = None
    tokens_per_second: float | None = None
    checkpoint: int | None = None

    @classmethod
    def read(cls, path: Path) -> Progress | None:
        """The last report at ``path``, None when there is none yet."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None


class ProgressReporter:
    """Writes reports to the file that the launcher named, every ``interval`` seconds at most; idle without one."""

    def __init__(self, *, interval: float = 1.0) -> None:
        path = os.environ.get(ENV_PROGRESS)
        self._path = Path(path) if path else None
        self._interval = interval
        self._last = 0.0

    def report(self, progress: Progress, *, now: bool = False) -> None:
        """Publish ``progress``; ``now`` ignores the interval (for the last report)."""
        moment = time.time()
        if self._path is None or (not now and moment - self._last < self._interval):
            return
        self._last = moment
        # Not fsynced: a report that a power cut loses is of no worth.
        temporary = self._path.with_name(f".tmp-{self._path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(asdict(progress) | {"updated_at": moment}))
        os.replace(temporary, self._path)
