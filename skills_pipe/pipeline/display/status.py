"""One run: a line for each stage and for each job of a chain, and what somebody has to see to.

::

    my-sft/run-3 · ns nemo_rl sft · submitted 2026-05-01 21:14 · 36.15 GPU-hours
    sft                running    4:31:10  36.15 GPU-h  segment 2 of 4
      my-sft-sft-0     continued  4:00:00  32.00 GPU-h  step 400, the time limit is near: saved after step 400
      my-sft-sft-1     running    31:10     4.15 GPU-h  ━━━━━━━━━━━━━━━━━━━━ 460/1000 steps · loss 1.234 · ...
      my-sft-sft-2     pending                          runs only if my-sft-sft-1 does not finish the work
    convert            pending                          waits for one of my-sft-sft-1, my-sft-sft-2

What does not fit behind the columns stands below, indented.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from skills_pipe.artifacts.metrics import Curve
from skills_pipe.artifacts.text_plot import line_plot
from skills_pipe.artifacts.units import compact
from skills_pipe.pipeline.display.output import STATE_STYLE, console_or_stdout, duration
from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.reports.report import JobReport, RunReport, StageReport

_BAR = 20
_INDENT = " " * 6
_PLOT_WIDTH = 100
_WARNING_STYLE = "yellow"
_GAP = "  "


def show_status(report: RunReport, *, only: str | None = None, console: Console | None = None) -> None:
    """A run, or one stage of it, and where the logs of its jobs are."""
    out = console_or_stdout(console)
    for line in status_lines(report, only=only, console=out):
        out.print(line, soft_wrap=True)
    for stage in _chosen(report, only):
        for job in stage.jobs:
            if job.status.log and job.status.started_at is not None:
                out.print(Text(f"log of {job.status.job}: {job.status.log}", style="dim"), soft_wrap=True)


def show_advice(sentences: Sequence[str], *, console: Console | None = None) -> None:
    """What to do next."""
    out = console_or_stdout(console)
    for sentence in sentences:
        out.print(Text(f"-> {sentence}", style="yellow"), soft_wrap=not out.is_terminal)


def show_curve(loss: Curve, validation: Curve, *, console: Console | None = None) -> None:
    """The loss of a training stage so far."""
    out = console_or_stdout(console)
    smooth = loss.smoothed()
    marks = ", x validation loss" if validation.steps else ""
    picture = line_plot(smooth.points, points=validation.points, width=min(_PLOT_WIDTH, out.width))
    out.print(Text(f"\ntraining loss, smoothed{marks}, by step\n{picture}"), soft_wrap=True)


def status_lines(report: RunReport, *, only: str | None = None, console: Console) -> list[Text]:
    """The lines of a run; ``only`` one stage of it."""
    bars = console.is_terminal
    stages = [(stage, _stage_rows(stage, report, bars=bars)) for stage in _chosen(report, only)]
    widths = [max((row.columns[index].cell_len for _, rows in stages for row in rows), default=0) for index in range(4)]
    lines = [*_title(report).wrap(console, console.width)]
    for stage, rows in stages:
        lines += [line for row in rows for line in row.lines(widths, console)]
        lines += [line for sentence in stage.warnings for line in _below(warning_text(sentence), console)]
    return lines


def warning_text(sentence: str) -> Text:
    """What a job warns of."""
    return Text(f"warning: {sentence}", style=_WARNING_STYLE)


def progress_text(job: JobReport, now: float) -> Text:
    """How far a job is, on one line; empty when it never said so."""
    return Text(" · ").join(_progress(job, now, bars=False))


@dataclass(frozen=True, kw_only=True)
class _Row:
    """Name, state, elapsed and GPU-hours in columns, then details of any length."""

    columns: tuple[Text, Text, Text, Text]
    details: tuple[Text, ...]

    def lines(self, widths: Sequence[int], console: Console) -> list[Text]:
        room = console.width
        name, state, elapsed, hours = (column.copy() for column in self.columns)
        name.pad_right(widths[0] - name.cell_len)
        state.pad_right(widths[1] - state.cell_len)
        elapsed.pad_left(widths[2] - elapsed.cell_len)
        hours.pad_left(widths[3] - hours.cell_len)
        shown = [column for column, width in zip((name, state, elapsed, hours), widths, strict=True) if width]
        line = Text(_GAP).join(shown)
        details = Text(" · ").join(self.details)
        if line.cell_len + len(_GAP) + details.cell_len <= room:
            return [_trimmed(line.append(_GAP).append_text(details))]
        below: list[Text] = []
        for part in self.details:
            if below and below[-1].cell_len + 3 + part.cell_len <= room:
                below[-1].append(" · ").append_text(part)
            else:
                below += _below(part, console)
        return [_trimmed(line), *below]


def _below(text: Text, console: Console) -> list[Text]:
    """Lines under that of a stage or job, no longer than the screen is wide."""
    pieces = text.wrap(console, max(1, console.width - len(_INDENT)))
    return [Text(_INDENT).append_text(piece) for piece in pieces]


def _chosen(report: RunReport, only: str | None) -> list[StageReport]:
    return [stage for stage in report.stages if only in (None, stage.name)]


def _title(report: RunReport) -> Text:
    text = Text(report.name, style="bold")
    parts = [f"ns {report.command}"]
    if report.submitted_at is not None:
        parts.append(f"submitted {time.strftime('%Y-%m-%d %H:%M', time.localtime(report.submitted_at))}")
    if report.with_gpus:
        parts.append(f"{report.gpu_hours:.2f} GPU-hours")
    return text.append("".join(f" · {part}" for part in parts), style="not bold")


def _stage_rows(stage: StageReport, report: RunReport, *, bars: bool) -> list[_Row]:
    """A stage of one job is one row; a chain has a row for each of its jobs below its own."""
    if not stage.jobs:
        return [_Row(columns=(Text(stage.name), Text(stage.word, style="dim"), Text(), Text()), details=())]
    if len(stage.jobs) == 1:
        return [_job_row(stage.jobs[0], stage.name, report, bars=bars)]
    seconds = sum(job.status.earlier_seconds + (job.status.elapsed(report.now) or 0.0) for job in stage.jobs)
    own = _Row(
        columns=(
            Text(stage.name),
            Text(stage.word, style=STATE_STYLE[stage.state] if stage.state else "dim"),
            Text(duration(seconds or None)),
            _hours(stage.gpu_hours, report),
        ),
        details=_segment(stage),
    )
    return [own, *(_job_row(job, f"  {job.status.job}", report, bars=bars) for job in stage.jobs)]


def _job_row(job: JobReport, name: str, report: RunReport, *, bars: bool) -> _Row:
    status = job.status
    elapsed = status.elapsed(report.now)
    hours = status.gpu_hours(report.now)
    return _Row(
        columns=(
            Text(name),
            Text(status.state.value, style=STATE_STYLE[status.state]),
            Text(duration(elapsed)),
            _hours(hours, report) if hours else Text(),
        ),
        details=tuple(_details(job, report.now, bars=bars)),
    )


def _hours(hours: float, report: RunReport) -> Text:
    return Text(f"{hours:.2f} GPU-h") if report.with_gpus and hours else Text()


def _segment(stage: StageReport) -> tuple[Text, ...]:
    segments = [job for job in stage.jobs if job.segment and job.status.started_at is not None]
    if not stage.is_chain or not segments:
        return ()
    last = segments[-1].segment
    return (Text(f"segment {last.index + 1} of {last.count}"),) if last else ()


def _details(job: JobReport, now: float, *, bars: bool) -> list[Text]:
    status = job.status
    parts = [Text(job.note)] if job.note else []
    if status.state is JobState.RUNNING:
        parts = [*_progress(job, now, bars=bars), *parts]
        silent = job.silent_seconds(now)
        if silent is not None:
            parts.append(Text(f"no news for {duration(silent)}", style="yellow"))
        if status.deadline is not None:
            parts.append(Text(f"may run until {_clock(status.deadline, now)}"))
    elif job.progress is not None and status.state is not JobState.SUCCEEDED and status.started_at is not None:
        parts.append(Text(_count(job)))
    if status.nodes:
        parts.append(Text(f"on {status.nodes}", style="dim"))
    if status.restarts:
        parts.append(Text("requeued once" if status.restarts == 1 else f"requeued {status.restarts} times"))
    return parts


def _progress(job: JobReport, now: float, *, bars: bool) -> list[Text]:
    progress = job.progress
    if progress is None:
        return []
    first = Text()
    if bars and progress.total:
        full = min(_BAR, round(_BAR * progress.done / progress.total))
        first.append("━" * full, style="cyan").append("━" * (_BAR - full), style="dim").append(" ")
    parts = [first.append(_count(job))]
    if progress.loss is not None:
        parts.append(Text(f"loss {progress.loss:.3f}"))
    if progress.tokens_per_second is not None:
        parts.append(Text(f"{compact(progress.tokens_per_second)} tokens/s"))
    if progress.note:
        parts.append(Text(progress.note))
    left = job.seconds_left(now)
    if left is not None:
        parts.append(Text(f"{duration(left)} left"))
    if progress.checkpoint is not None:
        parts.append(Text(f"checkpoint at step {progress.checkpoint}"))
    return parts


def _count(job: JobReport) -> str:
    progress = job.progress
    if progress is None:
        return ""
    return f"{progress.done}{f'/{progress.total}' if progress.total else ''} {progress.unit}"


def _clock(moment: float, now: float) -> str:
    """``18:04``, with the day when it is not today."""
    then, today = time.localtime(moment), time.localtime(now)
    form = "%H:%M" if then[:3] == today[:3] else "%a %H:%M"
    return time.strftime(form, then)


def _trimmed(line: Text) -> Text:
    line.rstrip()
    return line
