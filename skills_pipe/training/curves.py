"""The loss curve of a run, from its ``metrics.jsonl`` to a PNG and to the terminal.

::

    python -m skills_pipe.training.curves results/training-logs/metrics.jsonl --png loss.png
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from skills_pipe.artifacts.atomic import publish_file
from skills_pipe.errors import DataError, UserError
from skills_pipe.training.metrics import read_metrics
from skills_pipe.training.text_plot import line_plot


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Values of one metric: ``steps[i]`` had ``values[i]``."""

    steps: tuple[int, ...]
    values: tuple[float, ...]

    def smoothed(self) -> Curve:
        """Mean over a window around each point, a twentieth of the run wide.

        The window is symmetric and shrinks towards both ends, so the curve is not shifted to the right as a running
        average is, and starts and ends at the true values.
        """
        count = len(self.values)
        reach = count // 40
        sums = [0.0, *itertools.accumulate(self.values)]
        values = []
        for index in range(count):
            side = min(reach, index, count - 1 - index)
            values.append((sums[index + side + 1] - sums[index - side]) / (2 * side + 1))
        return Curve(steps=self.steps, values=tuple(values))


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What a picture of a run shows; a curve without points was not logged."""

    loss: Curve
    learning_rate: Curve
    validation: Curve

    @classmethod
    def read(cls, path: Path) -> Curves:
        """Read the curves of a ``metrics.jsonl``.

        Raises:
            DataError: there is no such file, or it has no training step.
        """
        if not path.is_file():
            raise DataError(f"no metrics file at {path}", fix="name the metrics.jsonl in a run's training-logs folder")
        lines = read_metrics(path)
        found = {
            name: Curve(
                steps=tuple(line["step"] for line in lines if line.get(name) is not None),
                values=tuple(line[name] for line in lines if line.get(name) is not None),
            )
            for name in ("train/loss", "train/lr", "validation/val_loss")
        }
        if not found["train/loss"].steps:
            raise DataError(f"{path} has no training step yet", fix="wait for the first step to be logged")
        return cls(loss=found["train/loss"], learning_rate=found["train/lr"], validation=found["validation/val_loss"])


def draw_png(curves: Curves, path: Path) -> None:
    """Write a picture: training loss raw and smoothed, validation loss as points, learning rate on a second axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Figure and canvas directly: pyplot would keep global state and look for a display.
    figure = Figure(figsize=(9, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    smooth = curves.loss.smoothed()
    axes.plot(curves.loss.steps, curves.loss.values, color="tab:blue", alpha=0.25, linewidth=1, label="training loss")
    axes.plot(smooth.steps, smooth.values, color="tab:blue", linewidth=2, label="training loss, smoothed")
    if curves.validation.steps:
        axes.plot(curves.validation.steps, curves.validation.values, "o-", color="tab:orange", label="validation loss")
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    if curves.learning_rate.steps:
        other = axes.twinx()
        rate = curves.learning_rate
        handles += other.plot(rate.steps, rate.values, ":", color="tab:gray", label="learning rate")
        labels += ["learning rate"]
        other.set_ylabel("learning rate")
        other.set_ylim(bottom=0)
    axes.legend(handles, labels, loc="upper right")
    with publish_file(path) as temporary:
        figure.savefig(temporary, format="png")


def draw_text(curves: Curves, *, width: int | None = None) -> str:
    """The loss curve in characters, ``width`` columns wide (None: as wide as the terminal, 100 at most)."""
    smooth = curves.loss.smoothed()
    picture = line_plot(
        list(zip(smooth.steps, smooth.values, strict=True)),
        points=list(zip(curves.validation.steps, curves.validation.values, strict=True)),
        width=width or min(100, shutil.get_terminal_size().columns),
    )
    marks = ", x validation loss" if curves.validation.steps else ""
    return f"training loss, smoothed{marks}, by step\n{picture}"


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the curves of a metrics file; 2 when it cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m skills_pipe.training.curves", description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, help="metrics.jsonl of a run")
    parser.add_argument("--png", type=Path, help="also write a picture here")
    arguments = parser.parse_args(argv)
    try:
        curves = Curves.read(arguments.file)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(draw_text(curves))
    if arguments.png:
        draw_png(curves, arguments.png)
        print(f"written: {arguments.png}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
