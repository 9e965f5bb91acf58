"""Tables over all benchmarks of a folder: ``python -m skills_pipe.evaluation.summarize OUTPUT_DIR``.

Finds ``OUTPUT_DIR/eval-results/<benchmark>/output*.jsonl``, ``OUTPUT_DIR/<benchmark>/output*.jsonl`` or
``OUTPUT_DIR/output*.jsonl``, prints a table per benchmark and writes ``metrics.json`` beside the benchmarks.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skills_pipe.artifacts import atomic
from skills_pipe.artifacts.names import EVAL_RESULTS
from skills_pipe.errors import DataError, OptionError, UserError
from skills_pipe.evaluation.arguments import parse_known
from skills_pipe.evaluation.benchmarks.spec import benchmark_names, load_benchmark
from skills_pipe.evaluation.metrics.compute import Metrics
from skills_pipe.evaluation.metrics.folders import folder_metrics
from skills_pipe.evaluation.metrics.table import format_table


@dataclass(frozen=True, kw_only=True)
class SummaryOptions:
    """What to count.

    Attributes:
        benchmarks: names of folders; None for all.
        metric_type: way to count; that of the benchmark when None, ``math`` for folders of another name.
        max_samples: count the first so many problems only; -1: all.
        max_seq_len: count longer answers (in tokens) as wrong.
    """

    benchmarks: tuple[str, ...] | None = None
    metric_type: str | None = None
    max_samples: int = -1
    max_seq_len: int | None = None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Metrics by benchmark, the folder that holds the benchmarks, and what could not be counted."""

    metrics: Mapping[str, Metrics]
    folder: Path
    problems: Sequence[str]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; 1 when a benchmark could not be counted, 2 after a user's mistake."""
    try:
        arguments = _parse(sys.argv[1:] if argv is None else argv)
        names = tuple(arguments.benchmarks.split(",")) if arguments.benchmarks else None
        options = SummaryOptions(
            benchmarks=names,
            metric_type=arguments.metric_type,
            max_samples=arguments.max_samples,
            max_seq_len=arguments.max_seq_len,
        )
        summary = summarize(arguments.results_dir, options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    target = arguments.save_metrics_path or summary.folder / "metrics.json"
    print("".join(format_table(name, metrics) + "\n\n\n" for name, metrics in summary.metrics.items()), end="")
    atomic.write_json(target, summary.metrics)
    print(f"Metrics are saved to {target}")
    for problem in summary.problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if summary.problems else 0


def summarize(results_dir: Path, options: SummaryOptions) -> Summary:
    """Count what lies below ``results_dir``; a damaged benchmark is told and does not stop the others.

    Raises:
        UserError: there is nothing to count.
    """
    folder, found = _find(results_dir)
    missing = [name for name in options.benchmarks or () if name not in found]
    if missing:
        raise OptionError(
            f"no results of {', '.join(missing)}", where=str(folder), fix=f"there are {', '.join(found) or 'none'}"
        )
    metrics: dict[str, Metrics] = {}
    problems = []
    for name in options.benchmarks or found:
        try:
            metric = options.metric_type or _metric_of(name)
            metrics |= folder_metrics(
                name, found[name], metric, max_samples=options.max_samples, max_seq_len=options.max_seq_len
            )
        except DataError as error:
            problems.append(f"{name}: {error}")
    if not metrics and not problems:
        raise DataError(
            "there are no results", where=str(results_dir), fix="give a folder with <benchmark>/output*.jsonl"
        )
    return Summary(metrics=_with_groups(metrics), folder=folder, problems=problems)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="summarize", allow_abbrev=False, description=__doc__)
    parser.add_argument("results_dir", type=Path, help="folder with eval-results, with benchmarks, or with output*")
    parser.add_argument("--benchmarks", default=None, help="comma-separated names; all when absent")
    parser.add_argument("--metric_type", default=None, help="way to count, instead of the benchmark's own")
    parser.add_argument("--max_samples", type=int, default=-1, help="first so many problems only")
    parser.add_argument("--max_seq_len", type=int, default=None, help="longer answers count as wrong")
    parser.add_argument("--save_metrics_path", type=Path, default=None, help="instead of metrics.json beside them")
    options, words, overrides = parse_known(parser, argv)
    if words or overrides:
        raise OptionError(f"{(words + overrides)[0]!r} is no option", fix="see --help")
    return options


def _find(results_dir: Path) -> tuple[Path, dict[str, Path]]:
    """The folder that holds the benchmarks, and the benchmarks in it."""
    if any(results_dir.glob("output*.jsonl")):
        return results_dir, {results_dir.resolve().name: results_dir}
    below = results_dir / EVAL_RESULTS
    folder = below if below.is_dir() else results_dir
    if not folder.is_dir():
        raise DataError("there is no such folder", where=str(results_dir), fix="check the path")
    entries = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if folder == below:
        # Below eval-results every folder is a benchmark; one without answers is a finding, not something else.
        return folder, {path.name: path for path in entries if "-logs" not in path.name}
    return folder, {path.name: path for path in entries if any(path.glob("output*.jsonl"))}


def _metric_of(name: str) -> str:
    base = name.partition(".")[0]
    return load_benchmark(base).metric if base in benchmark_names() else "math"


def _with_groups(metrics: Mapping[str, Metrics]) -> dict[str, Metrics]:
    """Put the average of ``a.x`` and ``a.y`` as ``a`` in front, where they have the same modes and metrics."""
    groups = defaultdict(list)
    for name in metrics:
        if "." in name:
            groups[name.partition(".")[0]].append(name)
    averages = {group: _average([metrics[n] for n in names]) for group, names in groups.items() if len(names) > 1}
    return {**averages, **metrics}


def _average(members: Sequence[Metrics]) -> Metrics:
    first = members[0]
    shapes = [{mode: sorted(values) for mode, values in member.items()} for member in members]
    if any(shape != shapes[0] for shape in shapes):
        raise DataError("the benchmarks of a group have different modes or metrics", fix="evaluate them alike")
    return {mode: _average_mode([member[mode] for member in members]) for mode in first}


def _average_mode(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    averaged: dict[str, Any] = {}
    for name, value in members[0].items():
        if name == "num_entries" or isinstance(value, dict):
            continue
        mean = sum(member[name] for member in members) / len(members)
        averaged[name] = int(mean) if isinstance(value, int) else mean
    return averaged | {"num_benchmarks_in_group": len(members)}


if __name__ == "__main__":
    sys.exit(main())
