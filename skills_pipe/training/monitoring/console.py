"""What a training run shows while it runs: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import rich
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from skills_pipe.artifacts.units import compact, duration

_SECONDS_BETWEEN_LINES = 1.0


class Console:
    """Shows training steps and validation results.

    Args:
        total_steps: length of the bar; 0 when unknown.
        resumed_step: where the bar starts.
    """

    def __init__(self, *, total_steps: int, resumed_step: int = 0) -> None:
        self._total = total_steps
        self._last_line = 0.0
        self._console = rich.get_console()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if self._console.is_terminal:
            columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[note]}"))
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task("", total=total_steps or None, completed=resumed_step, note="")
            self._bar.start()

    def show(self, step: int, values: Mapping[str, float], *, eta: float | None) -> None:
        """Show what was logged at ``step``: a training step moves the bar, a validation gets a line of its own."""
        for name, value in values.items():
            if name.startswith("validation/"):
                self._console.print(f"step {step}: {name.removeprefix('validation/')} {value:.4f}", highlight=False)
        if "train/loss" not in values:
            return
        note = _note(values, eta)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, note=note)
            return
        # A line per step of a tiny model would bury everything else in the log.
        now = time.monotonic()
        if step == self._total or now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            total = f"/{self._total}" if self._total else ""
            self._console.print(f"step {step}{total}: {note}", highlight=False, soft_wrap=True)

    def say(self, sentence: str) -> None:
        """A line of its own, above the bar."""
        self._console.print(f"note: {sentence}", highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()


def _note(values: Mapping[str, float], eta: float | None) -> str:
    parts = [f"loss {values['train/loss']:.4f}"]
    if not math.isnan(values.get("train/lr", math.nan)):
        parts.append(f"lr {values['train/lr']:.2e}")
    if "train/grad_norm" in values:
        parts.append(f"grad {values['train/grad_norm']:.2f}")
    if "train/tokens_per_second" in values:
        parts.append(f"{compact(values['train/tokens_per_second'])} tokens/s")
    if eta is not None:
        parts.append(f"{duration(eta)} left")
    return ", ".join(parts)
