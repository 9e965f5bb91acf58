"""Metrics as a text table, one block per benchmark, character for character as NeMo-Skills prints it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from skills_pipe.evaluation.metrics.compute import Metrics

COLUMNS = ("num_entries", "avg_tokens", "gen_seconds", "judge_correct", "symbolic_correct", "no_answer")
"""Metrics that are shown, in this order, where they are present; the rest is in ``metrics.json``."""

_WHOLE = frozenset({"num_entries", "avg_tokens", "gen_seconds"})


def format_table(name: str, metrics: Metrics) -> str:
    """A block for one benchmark: the modes of the highest k, as a user would quote them."""
    modes = shown_modes(metrics)
    columns = [column for column in COLUMNS if any(column in metrics[mode] for mode in modes)]
    rows = [["evaluation_mode", *columns]]
    rows += [[mode, *(_format(column, metrics[mode]) for column in columns)] for mode in modes]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    title = f" {name} ".center(sum(widths) + 3 * (len(widths) - 1), "-")
    return "\n".join([title, *(" | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)])


def shown_modes(metrics: Mapping[str, Any]) -> list[str]:
    """Average, majority and pass of the highest k."""
    highest = max(int(mode.removeprefix("pass@")) for mode in metrics if mode.removeprefix("pass@").isdigit())
    wanted = (f"pass@1[avg-of-{highest}]", f"majority@{highest}", f"pass@{highest}")
    return [mode for mode in wanted if mode in metrics]


def _format(column: str, metrics: Mapping[str, Any]) -> str:
    if column not in metrics:
        return ""
    value = metrics[column]
    scatter = metrics.get(f"{column}_statistics", {}).get("std_dev_across_runs")
    show: Callable[[float], str] = str if column in _WHOLE else lambda number: f"{number:.2f}%"
    if scatter is None:
        return show(value)
    return f"{show(value)} ± {scatter:.2f}" if column in _WHOLE else f"{show(value)} ± {100 * scatter:.2f}%"
