"""Checks whether parallel sizes, batch and model fit each other, and the memory of the GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skills_pipe.pipeline.checks.finding import Checked
from skills_pipe.pipeline.commands.sft.checks.trainer import (
    NO_CONFIG,
    config_of,
    model_of,
    ranks_of,
    shape_of,
    trainer_of,
)

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Request
    from skills_pipe.pipeline.commands.sft.options import SftOptions


def check_size(request: Request[SftOptions]) -> Checked:
    """Whether parallel sizes, batch and model fit each other."""
    from skills_pipe.pipeline.checks.sizes import check_sizes

    subject = "parallel sizes"
    config, trainer = config_of(request), trainer_of(request)
    if config is None or trainer is None:
        return Checked(subject=subject, left_out=NO_CONFIG)
    shape, model = shape_of(request, config), model_of(request, config)
    return Checked(
        subject=subject, findings=tuple(check_sizes(config.policy, shape, ranks=ranks_of(trainer), model=model))
    )


def check_fit(request: Request[SftOptions]) -> Checked:
    """Whether training fits into the memory of its GPUs."""
    from skills_pipe.pipeline.checks.sizes import check_memory

    subject = "memory of the GPUs"
    config, trainer = config_of(request), trainer_of(request)
    if config is None or trainer is None:
        return Checked(subject=subject, left_out=NO_CONFIG)
    if not trainer.resources.num_gpus:
        return Checked(subject=subject, left_out="no GPU is asked for")
    shape = shape_of(request, config)
    averaged = config.sft.ema_decay is not None
    return check_memory(config.policy, shape, ranks=ranks_of(trainer), gpu=request.gpu(trainer), averaged=averaged)
