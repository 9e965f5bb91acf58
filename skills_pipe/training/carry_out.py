"""A training from its first words to its loss curve, for the program and for the Python API."""

from __future__ import annotations

from pathlib import Path

from skills_pipe.artifacts.names import LOSS_PICTURE, METRICS
from skills_pipe.artifacts.verdict import Outcome, Verdict
from skills_pipe.errors import UserError
from skills_pipe.training.backends.base import TrainingDiverged
from skills_pipe.training.loop import train
from skills_pipe.training.monitoring import curves
from skills_pipe.training.monitoring.summary import show
from skills_pipe.training.progress import Progress
from skills_pipe.training.run import Run
from skills_pipe.training.setup import Parts


def carry_out(run: Run, parts: Parts, progress: Progress | None = None) -> Verdict:
    """Say what will be done, train, and close what was open; on every rank.

    ``progress`` is for who wants to know where the training stands afterwards; it starts where ``run`` does.
    """
    failed = True
    try:
        if run.nodes is not None:
            run.nodes.start()
        if run.world.first:
            show(run, parts.data, parts.tokenizer)
        verdict = train(run, progress or Progress.of(run))
        failed = verdict.outcome is Outcome.FAILED
    except TrainingDiverged as error:
        verdict = Verdict(outcome=Outcome.FAILED, step=error.step, reason=str(error))
    except BaseException:
        if run.checkpoints is not None:
            # While the ranks can still talk: what was saved before the failure is not lost with it.
            run.checkpoints.settle()
        raise
    finally:
        if run.profiler is not None:
            run.profiler.close()
        left = run.nodes.close() if run.nodes is not None else None
        # Whatever ended it: logs are flushed, and the terminal gets its cursor back before an error is told.
        if run.metrics is not None:
            try:
                if left is not None:
                    run.metrics.log_nodes(left)
            finally:
                run.metrics.close(failed=failed)
    _close(run, verdict)
    return verdict


def _close(run: Run, verdict: Verdict) -> None:
    """Seal the checkpoints of a finished training, and draw the curve."""
    if run.checkpoints is not None:
        if verdict.outcome is Outcome.COMPLETE:
            run.checkpoints.complete({"steps": verdict.step})
        else:
            run.checkpoints.close()
    if run.metrics is not None:
        _draw(Path(run.config.logger.log_dir))


def _draw(log_dir: Path) -> None:
    """The loss curve beside the metrics; nothing before the first step."""
    try:
        found = curves.Curves.read(log_dir / METRICS)
    except UserError:
        return
    curves.draw_png(found, log_dir / LOSS_PICTURE)
