"""What happened to a run, as JSON lines: one file per writer, merged on reading.

Nodes of a cluster must not append to one file on a network file system: lines get lost or interleaved there.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened at ``time`` (Unix seconds) to ``subject`` (a job, a stage, the run)."""

    time: float
    subject: str
    kind: str
    details: Mapping[str, Any] = field(default_factory=dict)


class EventLog:
    """Appends events to a file of its own in ``folder``."""

    def __init__(self, folder: Path, *, writer: str | None = None) -> None:
        name = writer or f"{socket.gethostname()}-{os.getpid()}"
        self._path = folder / f"{name}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, subject: str, kind: str, **details: Any) -> Event:
        """Record one event, flushed to disk before this returns."""
        event = Event(time=time.time(), subject=subject, kind=kind, details=details)
        line = json.dumps({"time": event.time, "subject": subject, "kind": kind, "details": details})
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        return event


def read_events(folder: Path) -> list[Event]:
    """All events below ``folder`` in the order of their time; a line cut short by a kill is left out."""
    events = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                events.append(Event(**json.loads(line)))
            except (ValueError, TypeError):
                continue
    return sorted(events, key=lambda event: event.time)
