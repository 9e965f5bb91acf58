"""Histograms of lengths: as text, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from skills_pipe.artifacts.atomic import publish_file
from skills_pipe.errors import OptionError

_BARS: Final = 14
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Documents of ``low`` to ``high`` tokens, both included."""

    low: int
    high: int
    count: int


def histogram(lengths: NDArray[np.int64]) -> list[Bin]:
    """About a dozen bins of equal, round width from 1 on; the last one holds the longest hundredth where that is far.

    Lengths below 1 are not counted.
    """
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return []
    longest = int(lengths.max())
    most = int(np.quantile(lengths, 0.99, method="inverted_cdf"))
    reach = longest if longest <= 1.5 * most else most
    width = _round_width(reach / _BARS)
    count = ceil(reach / width)
    edges = [width * index for index in range(count + 1)]
    numbers = np.histogram(np.minimum(lengths, edges[-1]), bins=[edge + 0.5 for edge in edges])[0].tolist()
    bins = [Bin(low=edges[i] + 1, high=edges[i + 1], count=numbers[i]) for i in range(count)]
    if longest > edges[-1]:
        beyond = int((lengths > edges[-1]).sum())
        last = bins.pop()
        bins.append(Bin(low=last.low, high=last.high, count=last.count - beyond))
        bins.append(Bin(low=edges[-1] + 1, high=longest, count=beyond))
    return bins


def draw_text(bins: Sequence[Bin], *, limit: int | None = None, width: int = 80) -> str:
    """A bar for each bin; the bin in which ``limit`` lies says so."""
    most = max((part.count for part in bins), default=0)
    names = [f"{part.low:,}-{part.high:,}" for part in bins]
    wide = max(map(len, names), default=0)
    counts = [f"{part.count:,}" for part in bins]
    room = max(10, width - wide - max(map(len, counts), default=0) - 4 - len("  < limit 00,000"))
    lines = []
    for part, name, count in zip(bins, names, counts, strict=True):
        here = limit is not None and part.low <= limit <= part.high
        mark = f"  < limit {limit:,}" if here else ""
        lines.append(f"{name:>{wide}} │{_bar(part.count / most * room if most else 0.0)} {count}{mark}")
    return "\n".join(lines)


def draw_png(lengths: NDArray[np.int64], path: Path, *, limit: int) -> None:
    """Write the histogram as a picture.

    Raises:
        OptionError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OptionError("matplotlib is not installed", where="--png", fix="pip install matplotlib") from error
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    bins = histogram(lengths)
    axes.bar(
        [part.low - 0.5 for part in bins],
        [part.count for part in bins],
        width=[part.high - part.low + 1 for part in bins],
        align="edge",
        edgecolor="white",
    )
    if bins and limit <= 1.2 * bins[-1].high:
        axes.axvline(limit, color="tab:red", linestyle="--", label=f"limit {limit:,}")
        axes.legend()
    axes.set(xlabel="tokens of a document", ylabel="documents")
    with publish_file(path) as temporary:
        figure.savefig(temporary, format="png")


def _bar(length: float) -> str:
    whole, rest = divmod(round(length * 8), 8)
    return ("█" * whole + _EIGHTHS[rest]).rstrip() or ("▏" if length > 0 else "")


def _round_width(width: float) -> int:
    """The next larger of 1, 2, 5 times a power of ten."""
    power = int(10.0 ** floor(log10(max(width, 1))))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width)
