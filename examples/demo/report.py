"""What the demo ends with: a table, the loss curve, where everything lies, and the same figures in result.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from skills_pipe.artifacts.atomic import write_json
from skills_pipe.training.monitoring.curves import Curves, draw_text


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The demo in four numbers.

    Attributes:
        accuracy_before, accuracy_after: percent of the held-out problems that the base and the tuned model solve.
        seconds: wall time of the pipeline, from the first stage to the last.
        train_tokens_per_second: tokens trained on, divided by the time of the training steps.
    """

    accuracy_before: float
    accuracy_after: float
    seconds: float
    train_tokens_per_second: float

    @classmethod
    def collect(cls, folder: Path, *, seconds: float) -> Figures:
        """Read what the stages left below ``folder``."""
        return cls(
            accuracy_before=_accuracy(folder / "results-before"),
            accuracy_after=_accuracy(folder / "results-after"),
            seconds=round(seconds, 1),
            train_tokens_per_second=round(_tokens_per_second(folder / "training-logs" / "metrics.jsonl"), 1),
        )


def show_report(figures: Figures, folder: Path) -> None:
    """Print the curve, the table and the places, and write ``result.json``."""
    console = Console()
    print(draw_text(Curves.read(folder / "training-logs" / "metrics.jsonl")))
    console.print("\nAccuracy on 500 word problems with operand pairs that training never saw")
    table = Table()
    table.add_column("model")
    table.add_column("accuracy", justify="right")
    table.add_row("base (random weights)", f"{figures.accuracy_before:.1f} %")
    table.add_row("fine-tuned, average of 3 checkpoints", f"{figures.accuracy_after:.1f} %")
    console.print(table)
    places = {
        "training data": "train.jsonl",
        "checkpoints": "checkpoints",
        "fine-tuned model": "final_hf_model",
        "loss curve": "training-logs/loss.png",
        "evaluation": "results-after/eval-results",
        "figures": "result.json",
    }
    for name, place in places.items():
        console.print(f"{name:>17}  {folder / place}", soft_wrap=True, highlight=False)
    console.print(
        f"{'time':>17}  {figures.seconds:.0f} s, training at {figures.train_tokens_per_second:,.0f} tokens/s",
        highlight=False,
    )
    write_json(folder / "result.json", asdict(figures))


def _accuracy(results: Path) -> float:
    metrics = json.loads((results / "eval-results" / "arithmetic" / "metrics.json").read_text())
    return float(metrics["arithmetic"]["pass@1"]["symbolic_correct"])


def _tokens_per_second(metrics: Path) -> float:
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [row for row in rows if "train/tokens_per_second" in row]
    tokens = [row["train/tokens_per_second"] * row["timing/train/total_step_time"] for row in steps]
    return sum(tokens) / sum(row["timing/train/total_step_time"] for row in steps)
