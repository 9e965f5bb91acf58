"""Checks whether parallel sizes, batch and model fit each other, and the memory of the GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skills_pipe.pipeline.checks.finding import Checked, errors_in
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
    """Whether parallel sizes, batch and model fit each other, and the layout that they make."""
    from skills_pipe.pipeline.checks.layout import layout_of
    from skills_pipe.pipeline.checks.sizes import check_sizes

    subject = "parallel sizes"
    config, trainer = config_of(request), trainer_of(request)
    if config is None or trainer is None:
        return Checked(subject=subject, left_out=NO_CONFIG)
    shape, model, ranks = shape_of(request, config), model_of(request, config), ranks_of(trainer)
    found = check_sizes(config.policy, shape, ranks=ranks, model=model)
    known = config.policy.dtensor_cfg.enabled and not errors_in(found)
    note = layout_of(config.policy, ranks=ranks) if known else ""
    return Checked(subject=subject, findings=tuple(found), note=note, told=ranks > 1)


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
