"""The loss curve of a run, from its ``metrics.jsonl`` to a PNG and to the terminal.

::

    python -m skills_pipe.training.monitoring.curves results/training-logs/metrics.jsonl --png loss.png
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from skills_pipe.artifacts.atomic import publish_file
from skills_pipe.artifacts.metrics import TRAIN_LOSS, VALIDATION_LOSS, Curve, read_metrics
from skills_pipe.artifacts.text_plot import line_plot
from skills_pipe.errors import DataError, UserError


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
        loss = Curve.of(TRAIN_LOSS, lines)
        if not loss.steps:
            raise DataError(f"{path} has no training step yet", fix="wait for the first step to be logged")
        return cls(loss=loss, learning_rate=Curve.of("train/lr", lines), validation=Curve.of(VALIDATION_LOSS, lines))

    def until(self, step: int) -> Curves:
        """The part up to a step, with it."""
        parts = {name: getattr(self, name).until(step) for name in ("loss", "learning_rate", "validation")}
        return Curves(**parts)


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
        smooth.points,
        points=curves.validation.points,
        width=width or min(100, shutil.get_terminal_size().columns),
    )
    marks = ", x validation loss" if curves.validation.steps else ""
    return f"training loss, smoothed{marks}, by step\n{picture}"


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the curves of a metrics file; 2 when it cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m skills_pipe.training.monitoring.curves", description=__doc__.split("\n")[0]
    )
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
