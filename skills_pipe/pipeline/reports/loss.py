"""The loss of a training stage so far, from the metrics that its jobs log beside their own logs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from skills_pipe.artifacts.metrics import TRAIN_LOSS, VALIDATION_LOSS, Curve, parse_metrics
from skills_pipe.artifacts.names import METRICS
from skills_pipe.pipeline.records.store import Run

_MOST_BYTES = 8 << 20
"""What is read of a file of metrics; a longer run is drawn from there on."""


@dataclass(frozen=True, kw_only=True)
class LossCurves:
    """Loss by step, of training and of held-out data; the latter may be empty."""

    loss: Curve
    validation: Curve


def loss_of(run: Run, stage: str) -> LossCurves | None:
    """The curves of a stage, None when it has logged no training step."""
    record = run.submission
    logs = [record.logs.get(job.name) for job in run.plan.jobs_of(stage) if job.segment] if record else []
    for path in dict.fromkeys(str(PurePath(log).with_name(METRICS)) for log in logs if log):
        tail = run.site.read_tail(path, -_MOST_BYTES, limit=_MOST_BYTES)
        # A first line that the limit has cut is no JSON, and left out.
        lines = parse_metrics(tail.data.decode(errors="replace"))
        loss = Curve.of(TRAIN_LOSS, lines)
        if loss.steps:
            return LossCurves(loss=loss, validation=Curve.of(VALIDATION_LOSS, lines))
    return None
