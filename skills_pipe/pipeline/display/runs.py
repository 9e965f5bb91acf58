"""The list of runs, one line for each."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from skills_pipe.pipeline.display.output import STATE_STYLE, console_or_stdout, print_table
from skills_pipe.pipeline.reports.report import RunReport


def show_runs(reports: Sequence[RunReport], *, hidden: int = 0, console: Console | None = None) -> None:
    """Each run with its stages and their states. ``hidden`` is how many older ones are not shown."""
    out = console_or_stdout(console)
    if not reports:
        out.print("nothing was submitted yet")
        return
    with_gpus = any(report.with_gpus for report in reports)
    table = Table("run", "submitted", "command", *(["GPU-h"] if with_gpus else []), "stages", box=None, pad_edge=False)
    for report in reports:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(report.submitted_at)) if report.submitted_at else ""
        hours = [f"{report.gpu_hours:.2f}"] if with_gpus else []
        table.add_row(report.name, when, report.command, *hours, _stages(report))
    print_table(table, out)
    if hidden > 0:
        out.print(f"and {hidden} older ones (--last=N, or --all)")


def _stages(report: RunReport) -> Text:
    parts = [
        Text(f"{stage.name} ").append(stage.word, style=STATE_STYLE[stage.state] if stage.state else "dim")
        for stage in report.stages
    ]
    return Text(", ").join(parts)
