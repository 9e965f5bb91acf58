"""Result folders: where the answers of a benchmark lie, and their metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from skills_pipe.errors import DataError, OptionError, did_you_mean
from skills_pipe.evaluation.metrics.compute import METRICS, MathMetrics, Metrics

GREEDY = "output.jsonl"
SAMPLED = "output-rs*.jsonl"
_ALL = "_all_"


def output_files(folder: Path) -> list[Path]:
    """The files with the answers of one benchmark, one per run.

    Raises:
        DataError: there is none, or there are those of a greedy run and of sampled ones.
    """
    greedy, sampled = folder / GREEDY, sorted(folder.glob(SAMPLED))
    if greedy.exists() and sampled:
        raise DataError(
            f"both {GREEDY} and {SAMPLED} are there: two evaluations with different settings",
            where=str(folder),
            fix="remove one of them, or give each evaluation a folder of its own",
        )
    if not greedy.exists() and not sampled:
        raise DataError(f"there is no {GREEDY} and no {SAMPLED}", where=str(folder), fix="evaluate first")
    return sampled or [greedy]


def folder_metrics(
    name: str, folder: Path, metric: str, *, max_samples: int = -1, max_seq_len: int | None = None
) -> dict[str, Metrics]:
    """Metrics of one result folder, and of its subsets (rows with ``subset_for_metrics``) as ``name-subset``.

    Args:
        name: of the benchmark.
        folder: with its ``output*.jsonl``.
        metric: a name of :data:`skills_pipe.evaluation.metrics.compute.METRICS`.
        max_samples: count the first so many problems only; -1: all.
        max_seq_len: count longer answers (in tokens) as wrong.

    Raises:
        DataError: the files are missing, damaged or of different lengths.
        OptionError: the metric is unknown.
    """
    if metric not in METRICS:
        raise OptionError(f"there is no metric {metric!r}", fix=did_you_mean(metric, METRICS) or "choose math")
    counters: dict[str, MathMetrics] = {_ALL: METRICS[metric]()}
    files = output_files(folder)
    for index, samples in enumerate(_rows(files)):
        if index == max_samples:
            break
        if max_seq_len is not None:
            samples = [_void_if_long(sample, max_seq_len) for sample in samples]
        counters[_ALL].add(samples)
        subset = samples[0].get("subset_for_metrics")
        if subset:
            counters.setdefault(subset, METRICS[metric]()).add(samples)
    results = {name if key == _ALL else f"{name}-{key}": counter.result() for key, counter in counters.items()}
    if not results[name]:
        raise DataError("there is no answer in it", where=str(files[0]), fix="evaluate again")
    return results


def _rows(files: Sequence[Path]) -> Iterator[list[dict[str, Any]]]:
    """The answers of all runs to each problem in turn."""
    streams = [_read(path) for path in files]
    for number, samples in enumerate(zip_longest(*streams), start=1):
        short = [path.name for path, sample in zip(files, samples, strict=True) if sample is None]
        if short:
            raise DataError(
                f"{', '.join(short)} ends before row {number}", where=str(files[0].parent), fix="evaluate again"
            )
        yield list(samples)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"no JSON: {error}", where=f"{path}:{number}", fix="evaluate again") from error
            if not isinstance(row, dict):
                raise DataError("the line is no JSON object", where=f"{path}:{number}", fix="evaluate again")
            yield row


def _void_if_long(sample: dict[str, Any], limit: int) -> dict[str, Any]:
    if int(sample.get("num_generated_tokens", 0)) <= limit:
        return sample
    wrong = {name: False for name in ("symbolic_correct", "judge_correct") if name in sample}
    return sample | wrong | {"predicted_answer": None}
