"""Whether a training can say which of its checkpoints is the best, when that is the one to convert."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skills_pipe.pipeline.checks.finding import Checked, error
from skills_pipe.pipeline.commands.conversion import BEST
from skills_pipe.pipeline.commands.sft.checks.trainer import config_of

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Request
    from skills_pipe.pipeline.commands.sft.options import SftOptions


def check_best(request: Request[SftOptions]) -> Checked:
    """An error where ``--conversion_step=best`` would find no metric after all the training."""
    subject = "metric of checkpoints"
    config = config_of(request)
    if request.options.conversion_step != BEST or config is None:
        return Checked(subject=subject)
    metric, data = config.checkpointing.metric_name, config.data
    held_out = data.validation or any(dataset.split_validation_size for dataset in data.train)
    if metric is None:
        what, fix = "checkpointing.metric_name is null: no checkpoint is the best", "name a metric"
    elif metric.startswith("val:") and not held_out:
        what, fix = f"nothing will be validated, so that no checkpoint has {metric}", "give --validation_data"
    else:
        return Checked(subject=subject)
    finding = error(what, where=f"--conversion_step={BEST}", fix=f"{fix}, or convert the last checkpoint")
    return Checked(subject=subject, findings=(finding,))
