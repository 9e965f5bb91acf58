"""Everything that can be checked before a job waits in a queue; all findings at once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(str, Enum):
    """Whether a finding stops the submission."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about a run that is wrong, or probably not meant.

    Attributes:
        what: what is wrong, as a sentence without a full stop.
        where: the flag, key or path where it was set.
        fix: what to do about it, as an imperative without a full stop.
    """

    severity: Severity
    what: str
    where: str | None = None
    fix: str | None = None

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        advice = f": {self.fix}" if self.fix else ""
        return f"{self.severity.value}: {self.what}{place}{advice}"


def error(what: str, *, where: str | None = None, fix: str | None = None) -> Finding:
    """A finding that stops the submission."""
    return Finding(severity=Severity.ERROR, what=what, where=where, fix=fix)


def warning(what: str, *, where: str | None = None, fix: str | None = None) -> Finding:
    """A finding that is shown, and no more."""
    return Finding(severity=Severity.WARNING, what=what, where=where, fix=fix)
