"""What checks of a training look at: its job, its configuration, the sizes of its model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skills_pipe.pipeline.commands.sft.keys import keys_of, read_keys
from skills_pipe.pipeline.plan import Job

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Request
    from skills_pipe.pipeline.commands.sft.options import SftOptions
    from skills_pipe.training.config import TrainingConfig
    from skills_pipe.training.config.estimate import ModelShape

NO_CONFIG = "nothing trains, or its keys are wrong"


def trainer_of(request: Request[SftOptions]) -> Job | None:
    """The job of training, the first of a chain; None where nothing trains."""
    return next((job for job in request.plan.jobs if job.segment), None)


def config_of(request: Request[SftOptions]) -> TrainingConfig | None:
    """The configuration of the trainer; None where there is none, or a wrong one."""
    trainer = trainer_of(request)
    return read_keys(keys_of(trainer.command))[0] if trainer else None


def ranks_of(trainer: Job) -> int:
    """Processes that train together: GPUs, or CPU processes in their place."""
    return trainer.resources.num_nodes * max(1, trainer.resources.num_gpus)


def shape_of(request: Request[SftOptions], config: TrainingConfig) -> ModelShape | None:
    """Sizes of the base model; None where they are not known here."""
    from skills_pipe.training.config.estimate import ModelShape

    model = model_of(request, config)
    return ModelShape.of(model) if model is not None else None


def model_of(request: Request[SftOptions], config: TrainingConfig) -> dict[str, Any] | None:
    """The model's ``config.json`` with what replaces its values; None where it cannot be read here."""
    found = request.model_config(config.policy.model_name)
    return {**found, **config.policy.hf_config_overrides} if found else None
