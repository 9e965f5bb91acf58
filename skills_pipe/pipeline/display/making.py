"""What a run was made of, as a tree."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from skills_pipe.artifacts.units import compact
from skills_pipe.pipeline.display.output import STATE_STYLE, console_or_stdout, duration
from skills_pipe.pipeline.reports.lineage import Origin
from skills_pipe.pipeline.reports.making import RunMaking, StageMaking
from skills_pipe.pipeline.reports.report import JobReport

_HASH = 12


def show_making(making: RunMaking, *, only: str | None = None, console: Console | None = None) -> None:
    """The command and the code of a run, and a branch for each stage; ``only`` one of them."""
    report = making.report
    tree = Tree(Text(report.name, style="bold").append(f" · ns {report.command}", style="not bold"))
    if making.command is not None:
        tree.add(Text(f"command  {making.command}"))
    tree.add(Text(f"code  {_code(making.code)}"))
    makers = {stage.output.path: stage.report.name for stage in making.stages if stage.output}
    for stage in making.stages:
        if only in (None, stage.report.name):
            _add_stage(tree, stage, makers, report.now)
    # As in plans: the tree breaks its lines itself, and nothing is cut off.
    console_or_stdout(console).print(tree)


def show_differences(found: Mapping[str, Iterable[str]], *, console: Console | None = None) -> None:
    """What differs between two runs."""
    out = console_or_stdout(console)
    if not found:
        out.print("the same options, inputs and code")
    for name, lines in found.items():
        out.print(Text(name, style="bold"))
        for line in lines:
            out.print(Text(f"    {line}", style="yellow"), soft_wrap=True)


def _add_stage(tree: Tree, stage: StageMaking, makers: Mapping[str, str], now: float) -> None:
    told = stage.report
    style = STATE_STYLE[told.state] if told.state else "dim"
    branch = tree.add(Text(told.name, style="bold").append(f"  {told.word}", style=f"not bold {style}"))
    if stage.output is not None:
        branch.add(Text(f"output  {stage.output.path}").append(f"  {_sealed(stage)}", style="dim"))
    if stage.identity is not None:
        branch.add(Text(f"identity  {stage.identity.digest[:_HASH]}"))
        _add_options(branch, stage.identity.fields.get("options", {}))
    for origin in stage.inputs:
        if origin.path in makers:  # what that was made of stands at its own branch
            text = Text(f"input  {origin.path}").append(f"  of stage {makers[origin.path]}", style="dim")
            branch.add(text)
        else:
            _add_origin(branch, origin)
    for job in told.jobs:
        branch.add(_job(job, now))


def _add_options(branch: Tree, options: Mapping[str, object]) -> None:
    if options:
        inner = branch.add("options")
        for name, value in options.items():
            inner.add(Text(f"{name} = {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"))


def _add_origin(branch: Tree, origin: Origin) -> None:
    text = Text(f"input  {origin.path}").append(f"  {_fingerprint(origin.fingerprint)}", style="dim")
    if origin.manifest is not None:
        text.append(f"  {origin.manifest.kind}, {compact(origin.size)}B", style="dim")
    inner = branch.add(text)
    if origin.identity is not None:
        _add_options(inner, origin.identity.fields.get("options", {}))
    for deeper in origin.inputs:
        _add_origin(inner, deeper)


def _sealed(stage: StageMaking) -> str:
    output = stage.output
    if output is None or output.manifest is None:
        return "not finished"
    files = len(output.manifest.files)
    text = f"{output.manifest.kind}, {files} file{'s' if files != 1 else ''}, {compact(output.size)}B"
    return text if stage.is_this_runs else f"{text}; made otherwise since, or before"


def _code(code: Mapping[str, object] | None) -> str:
    if code is None:
        return "the installed package"
    parts = [str(code["hash"])[:_HASH]]
    if code.get("repository"):
        commit = str(code.get("commit") or "")[:_HASH] or "no commit yet"
        parts.append(f"{code['repository']} at {commit}")
        if code.get("branch"):
            parts.append(f"branch {code['branch']}")
        if code.get("dirty"):
            parts.append("with changes that were not committed: diff.patch")
    return ", ".join(parts)


def _fingerprint(mark: str) -> str:
    """Long hashes are cut to what a person can compare."""
    kind, colon, rest = mark.partition(":")
    return f"{kind}{colon}{rest[:_HASH] if len(rest) >= 40 and rest.isalnum() else rest}"


def _job(job: JobReport, now: float) -> Text:
    status = job.status
    text = Text(f"job {status.job}  ").append(status.state.value, style=STATE_STYLE[status.state])
    parts = [f"id {status.job_id}"] if status.job_id else []
    if status.started_at is not None:
        parts.append(time.strftime("%Y-%m-%d %H:%M", time.localtime(status.started_at)))
        parts.append(duration(status.elapsed(now)))
    if status.nodes:
        parts.append(f"on {status.nodes}")
    return text.append("".join(f" · {part}" for part in parts), style="dim")
