"""What checks tell: findings, and what was looked at without finding anything."""

from __future__ import annotations

from collections.abc import Iterable
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
        path: the input that it is about, as the plan names it.
    """

    severity: Severity
    what: str
    where: str | None = None
    fix: str | None = None
    path: str | None = None

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        advice = f": {self.fix}" if self.fix else ""
        return f"{self.severity.value}: {self.what}{place}{advice}"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One subject of the checks, and how it went.

    Attributes:
        subject: what was looked at: ``partitions``.
        findings: what is wrong with it.
        left_out: why nobody could look; None if somebody did.
        note: what is good to know, even if nothing is wrong: ``about 61 of 80 GiB on each GPU``.
        told: whether a dry run shows the note with the plan.
    """

    subject: str
    findings: tuple[Finding, ...] = ()
    left_out: str | None = None
    note: str = ""
    told: bool = False


def error(what: str, *, where: str | None = None, fix: str | None = None, path: str | None = None) -> Finding:
    """A finding that stops the submission."""
    return Finding(severity=Severity.ERROR, what=what, where=where, fix=fix, path=path)


def warning(what: str, *, where: str | None = None, fix: str | None = None) -> Finding:
    """A finding that is shown, and no more."""
    return Finding(severity=Severity.WARNING, what=what, where=where, fix=fix)


def errors_in(findings: Iterable[Finding]) -> list[Finding]:
    """Those that stop the submission."""
    return [finding for finding in findings if finding.severity is Severity.ERROR]
