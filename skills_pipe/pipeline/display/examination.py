"""What was looked at before a submission, and what is wrong: a table of subjects, then the findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from skills_pipe.pipeline.checks.finding import Checked, Severity
from skills_pipe.pipeline.display.output import console_or_stdout, print_table
from skills_pipe.pipeline.display.plan import show_findings

if TYPE_CHECKING:
    from skills_pipe.pipeline.examine import Examination


def show_examination(found: Examination, *, console: Console | None = None) -> None:
    """A line for each subject: whether it is well, or why nobody could look; then all findings, errors first."""
    out = console_or_stdout(console)
    table = Table("checked", "", "", box=None, pad_edge=False)
    for subject in found.checked:
        table.add_row(subject.subject, _state(subject), Text(subject.left_out or subject.note, style="dim"))
    print_table(table, out)
    show_findings(found.findings, console=console)


def _state(subject: Checked) -> Text:
    counts = {kind: sum(finding.severity is kind for finding in subject.findings) for kind in Severity}
    words = [f"{count} {kind.value}{'s' if count > 1 else ''}" for kind, count in counts.items() if count]
    if words:
        return Text(", ".join(words), style="bold red" if counts[Severity.ERROR] else "yellow")
    return Text("not checked", style="dim") if subject.left_out else Text("ok", style="green")
