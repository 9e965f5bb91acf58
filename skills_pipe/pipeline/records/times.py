"""When the jobs of a run ran, as their batch scripts have noted it: a job that is requeued has several starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from skills_pipe.artifacts.events import Event

RAN_FROM = "ran from"
"""Kind of the event that a batch script writes when it begins."""
RAN_TO = "ran to"
"""Kind of the event that it writes when it is told to end, or queues itself again."""


@dataclass(frozen=True, kw_only=True)
class Starts:
    """The starts of one job.

    Attributes:
        count: how many there were.
        last_from, last_to: Unix time of the last one; None when it has not begun, or not ended.
        seconds_before: how long all earlier ones ran together.
    """

    count: int = 0
    last_from: float | None = None
    last_to: float | None = None
    seconds_before: float = 0.0


def starts_of(job: str, events: Iterable[Event]) -> Starts:
    """The starts of ``job`` as its events tell them."""
    begun: dict[int, float] = {}
    ended: dict[int, float] = {}
    for event in events:
        if event.subject == job and event.kind in (RAN_FROM, RAN_TO):
            (begun if event.kind == RAN_FROM else ended)[int(event.details["start"])] = event.time
    if not begun:
        return Starts()
    last = max(begun)
    return Starts(
        count=last + 1,
        last_from=begun[last],
        last_to=ended.get(last),
        seconds_before=sum(max(0.0, ended[k] - begun[k]) for k in begun if k != last and k in ended),
    )
