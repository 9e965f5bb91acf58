"""Whether a training can say which of its checkpoints is the best."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skills_pipe.pipeline.checks.finding import Checked, Finding, error, warning
from skills_pipe.pipeline.commands.conversion import BEST
from skills_pipe.pipeline.commands.sft.checks.trainer import config_of

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Request
    from skills_pipe.pipeline.commands.sft.options import SftOptions
    from skills_pipe.training.config import TrainingConfig


def check_best(request: Request[SftOptions]) -> Checked:
    """Where ``--conversion_step=best`` would find no metric after all the training, or the best step no checkpoint."""
    subject = "metric of checkpoints"
    config, converts_best = config_of(request), request.options.conversion_step == BEST
    if config is None:
        return Checked(subject=subject)
    found = (_without_metric(config) if converts_best else None) or _off_validation(config, asked=converts_best)
    return Checked(subject=subject, findings=(found,) if found else ())


def _without_metric(config: TrainingConfig) -> Finding | None:
    metric = config.checkpointing.metric_name
    if metric is None:
        what, fix = "checkpointing.metric_name is null: no checkpoint is the best", "name a metric"
    elif metric.startswith("val:") and not _has_data(config):
        what, fix = f"nothing will be validated, so that no checkpoint has {metric}", "give --validation_data"
    elif metric.startswith("val:") and not (config.sft.val_period or config.sft.val_at_end):
        what = f"nothing will be validated while it trains, so that no checkpoint has {metric}"
        fix = "set ++sft.val_at_end=true, or ++sft.val_period"
    else:
        return None
    return error(what, where=f"--conversion_step={BEST}", fix=f"{fix}, or convert the last checkpoint")


def _off_validation(config: TrainingConfig, *, asked: bool) -> Finding | None:
    """Checkpoints of steps that are not validated: they are ranked last, and deleted first."""
    saved, validated, metric = config.checkpointing.save_period, config.sft.val_period, config.checkpointing.metric_name
    # Who validates at the end only, as the defaults do, ranks nothing unless the best is asked for.
    matters = asked or config.sft.early_stopping is not None or (validated and config.checkpointing.keep_top_k)
    if not (matters and saved and metric and metric.startswith("val:") and _has_data(config)):
        return None
    if not (validated or config.sft.val_at_end):
        return None
    if not _saves_off(saved, validated, last=config.sft.max_num_steps):
        return None
    moments = f"every {_steps(validated)}" if validated else "at the end only"
    return warning(
        f"checkpoints are saved every {_steps(saved)} and validated {moments}: those without a validation have no "
        f"{metric}, and are never the best",
        where="checkpointing.save_period",
        fix=f"set it to a multiple of sft.val_period, as ++sft.val_period={saved} makes it",
    )


def _saves_off(saved: int, validated: int, *, last: int | None) -> bool:
    """Whether a step on the way is saved that is not validated; the last one always is."""
    if not validated or saved % validated:
        return last is None or any(not validated or step % validated for step in range(saved, last, saved))
    return False


def _steps(number: int) -> str:
    return "step" if number == 1 else f"{number} steps"


def _has_data(config: TrainingConfig) -> bool:
    data = config.data
    return bool(data.validation or any(dataset.split_validation_size for dataset in data.train))
