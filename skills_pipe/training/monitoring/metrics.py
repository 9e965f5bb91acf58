"""The numbers of a training run: to ``metrics.jsonl`` always, to the terminal, the launcher and tracking services.

::

    metrics = MetricsLogger(config.logger, total_steps=120, resumed_step=0)     # on rank 0
    metrics.log(1, {"train/loss": 2.3, "train/lr": 1e-5, "train/tokens_per_second": 5600.0})
    metrics.log(10, {"validation/val_loss": 2.1})
    metrics.close()

Names follow NeMo-RL: ``train/loss``, ``train/grad_norm``, ``train/lr``, ``train/global_valid_toks``,
``train/tokens_per_second``, ``timing/train/...``, ``validation/val_loss``.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from skills_pipe.artifacts.atomic import publish_file
from skills_pipe.artifacts.metrics import NODES_TIME, TOKENS_PER_SECOND, TRAIN_LOSS, read_metrics
from skills_pipe.artifacts.names import METRICS
from skills_pipe.artifacts.progress import Progress, ProgressReporter
from skills_pipe.training.config.schema.logger import LoggerConfig
from skills_pipe.training.monitoring.console import Console
from skills_pipe.training.monitoring.sampler import Measured
from skills_pipe.training.monitoring.trackers import open_trackers


class MetricsLogger:
    """Sends the values of each step everywhere they are wanted; for one process of a run, rank 0.

    Args:
        config: section ``logger`` of the configuration.
        total_steps: at which the run is complete; 0 when unknown.
        resumed_step: step of the checkpoint that the run goes on from; what was logged after it is dropped.
        run_config: the whole configuration as plain values, for services that show it beside the curves.

    Raises:
        ConfigError: the package of an enabled service is not installed.
    """

    def __init__(
        self,
        config: LoggerConfig,
        *,
        total_steps: int,
        resumed_step: int = 0,
        run_config: Mapping[str, Any] | None = None,
    ) -> None:
        self._total = total_steps
        self._trackers = open_trackers(config, resumed_step=resumed_step, run_config=run_config or {})
        path = Path(config.log_dir) / METRICS
        self._began = _began(path)
        self._file = _open_lines(path, resumed_step)
        self._console = Console(total_steps=total_steps, resumed_step=resumed_step)
        self._reporter = ProgressReporter()
        self._begin, self._first_step = time.monotonic(), resumed_step
        self._saved = resumed_step or None
        self._step = resumed_step
        self._last: tuple[int, Mapping[str, float | None], float | None] | None = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values that were measured at ``step``; a value that is not finite becomes ``null`` in the file."""
        self._step = step
        plain = {name: float(value) for name, value in values.items()}
        lines = {name: value if math.isfinite(value) else None for name, value in plain.items()}
        self._file.write(json.dumps({"step": step, "time": time.time(), **lines}) + "\n")
        self._file.flush()
        self._trackers.log(step, plain)
        eta = self._eta(step) if TRAIN_LOSS in plain else None
        self._console.show(step, plain, eta=eta)
        if TRAIN_LOSS in plain:
            self._last = step, lines, eta
            self._report(step, lines, eta, now=step == self._total)

    def log_nodes(self, measured: Measured) -> None:
        """Record what nodes use, against the time since the run began; in the file beside the step of that moment."""
        for sample in measured.samples:
            # Clocks of nodes differ a little.
            seconds = max(0, int(sample.time - self._began))
            line = {"step": self._step, "time": sample.time, NODES_TIME: seconds, **sample.values}
            self._file.write(json.dumps(line) + "\n")
            self._trackers.log_nodes(seconds, sample.values)
        self._file.flush()
        for note in measured.notes:
            self.say(note)

    def say(self, sentence: str) -> None:
        """Tell who reads the terminal or the log."""
        self._console.say(sentence)

    def saved(self, step: int) -> None:
        """There is a checkpoint of ``step`` from now on; who watches the run is told at once."""
        self._saved = step
        if self._last is not None:
            self._report(*self._last, now=True)

    def close(self, *, failed: bool = False) -> None:
        """Flush and end every log; services are told whether the training ``failed``."""
        self._file.close()
        self._console.close()
        self._trackers.close(failed=failed)

    def _report(self, step: int, values: Mapping[str, float | None], eta: float | None, *, now: bool) -> None:
        progress = Progress(
            done=step,
            total=self._total,
            unit="steps",
            eta_seconds=eta,
            loss=values.get(TRAIN_LOSS),
            tokens_per_second=values.get(TOKENS_PER_SECOND),
            checkpoint=self._saved,
        )
        self._reporter.report(progress, now=now)

    def _eta(self, step: int) -> float | None:
        done = step - self._first_step
        if done <= 0 or not self._total:
            return None
        return (time.monotonic() - self._begin) / done * max(0, self._total - step)


def _began(path: Path) -> float:
    """When the run began (Unix, seconds), as the nodes' lines of the jobs before tell; now without such lines."""
    lines = read_metrics(path) if path.exists() else []
    return min((line["time"] - line[NODES_TIME] for line in lines if NODES_TIME in line), default=time.time())


def _open_lines(path: Path, resumed_step: int) -> IO[str]:
    """Open the file for appending, without lines after ``resumed_step``: the steps they tell of are done again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        kept = [line for line in read_metrics(path) if line["step"] <= resumed_step] if resumed_step else []
        with publish_file(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    return open(path, "a", encoding="utf-8")
