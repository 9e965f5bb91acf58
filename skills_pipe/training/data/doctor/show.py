"""A diagnosis on a terminal or in a log, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from skills_pipe.training.data.doctor.diagnosis import Diagnosis
from skills_pipe.training.data.doctor.findings import Finding, Severity
from skills_pipe.training.data.doctor.histogram import draw_text, histogram
from skills_pipe.training.data.doctor.planning import ENOUGH
from skills_pipe.training.data.doctor.survey import Survey
from skills_pipe.training.data.preview.visible import visible

_COLOURS = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.NOTE: "cyan"}


def show(diagnosis: Diagnosis, found: Sequence[Finding], console: Console) -> None:
    """Print everything."""
    _facts(console, "training data", _survey(diagnosis.train))
    if diagnosis.validation is not None:
        _facts(console, "validation data", _survey(diagnosis.validation))
    _facts(console, "an epoch", _epoch(diagnosis))
    bins = histogram(diagnosis.train.lengths)
    if bins:
        console.print("\ntokens of the training documents, without a limit:", highlight=False)
        picture = draw_text(bins, limit=diagnosis.limit, width=min(console.width, 100))
        console.print(picture, highlight=False, markup=False, soft_wrap=True)
        console.print()
        console.print(_lengths(diagnosis))
        console.print(
            f"suggested limit: {diagnosis.suggested:,} tokens hold {ENOUGH:.1%} of the documents whole\n",
            highlight=False,
            soft_wrap=True,
        )
    for finding in found:
        name = f"[{_COLOURS[finding.severity]}]{finding.severity.value}:[/]"
        console.print(f"{name} {escape(visible(str(finding)))}", highlight=False, soft_wrap=True)
    console.print(verdict(found), highlight=False, style="bold")


def verdict(found: Sequence[Finding]) -> str:
    """How many findings of which kind."""
    counts = {severity: sum(finding.severity is severity for finding in found) for severity in Severity}
    named = [f"{count} {severity.value}{'s' if count > 1 else ''}" for severity, count in counts.items() if count]
    return ", ".join(named) or "nothing to complain about"


def as_json(diagnosis: Diagnosis, found: Sequence[Finding]) -> dict[str, Any]:
    """Everything as plain values."""
    return {
        "train": _survey_json(diagnosis.train),
        "validation": _survey_json(diagnosis.validation) if diagnosis.validation else None,
        "leakage": asdict(diagnosis.leaked) if diagnosis.validation else None,
        "max_length": diagnosis.limit,
        "suggested_max_length": diagnosis.suggested,
        "lengths": [asdict(plan) for plan in diagnosis.lengths],
        "epoch": asdict(diagnosis.epoch),
        "findings": [{**asdict(finding), "severity": finding.severity.value} for finding in found],
    }


def _survey(part: Survey) -> Iterator[tuple[str, str]]:
    yield "looked at", part.selection.describe()
    yield from part.report.describe()
    several = sum(count for answers, count in part.answers.items() if answers > 1)
    if several:
        yield "documents with several answers", f"{several:,}, {max(part.answers)} at most"
    if part.endings.last:
        total = sum(part.endings.last.values())
        ends = part.endings.last.most_common(4)
        yield "answers end with", ", ".join(f"{token or 'no special token'} {n / total:.1%}" for token, n in ends)
    yield "rows that repeat another one", f"{part.repeats.rows:,}"
    yield "rows that repeat a prompt only", f"{part.repeats.prompts:,}"


def _epoch(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    epoch = diagnosis.epoch
    about = "about " if diagnosis.epoch_is_estimated else ""
    yield "documents", f"{about}{epoch.documents:,}"
    yield "tokens", f"{about}{epoch.tokens:,}"
    if epoch.units != epoch.documents:
        yield epoch.unit, f"{about}{epoch.units:,}"
    each = f"{epoch.batch_size:,} {epoch.unit}, {epoch.tokens_per_step:,} tokens on average"
    yield "steps", f"{about}{epoch.steps:,} of {each}"
    if epoch.left_over:
        yield "left over", f"{about}{epoch.left_over:,} {epoch.unit}, which fill no step"
    if epoch.planned_steps is not None:
        steps = "1 step" if epoch.planned_steps == 1 else f"{epoch.planned_steps:,} steps"
        yield "training", f"{about}{steps}, {epoch.planned_steps / epoch.steps:.2f} epochs"


def _lengths(diagnosis: Diagnosis) -> Table:
    table = Table(title="what a limit would mean", title_justify="left", box=None, pad_edge=False)
    for heading in ("limit", "longer", "tokens lost", "microbatches full"):
        table.add_column(heading, justify="right")
    for plan in diagnosis.lengths:
        here = " *" if plan.limit == diagnosis.limit else ""
        table.add_row(f"{plan.limit:,}{here}", *map(_percent, (plan.longer, plan.lost, plan.packed)))
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _facts(console: Console, title: str, rows: Iterator[tuple[str, str]]) -> None:
    if not console.is_terminal:
        for label, value in rows:
            console.print(f"{title}: {label}: {value}", highlight=False, markup=False, soft_wrap=True)
        return
    table = Table(title=title, title_justify="left", show_header=False)
    for label, value in rows:
        table.add_row(escape(label), escape(value))
    console.print(table)


def _survey_json(part: Survey) -> dict[str, Any]:
    return {
        "rows": part.selection.total,
        "rows_read": part.selection.chosen,
        "report": part.report.to_json(),
        "supervised_ratio": part.report.supervised_ratio,
        "documents_in_all": part.documents_in_all,
        "tokens_in_all": part.tokens_in_all,
        "histogram": [asdict(part) for part in histogram(part.lengths)],
        "answers": {str(answers): count for answers, count in sorted(part.answers.items())},
        "endings": {
            "documents": part.endings.documents,
            "with_bos": part.endings.with_bos,
            "bos_inside": part.endings.bos_inside,
            "last": {token or "": count for token, count in part.endings.last.most_common()},
        },
        "repeats": asdict(part.repeats),
        "bad_rows": part.fault_count,
    }
