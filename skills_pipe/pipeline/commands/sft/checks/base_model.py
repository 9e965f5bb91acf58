"""Checks of the base model: its files and layers, and its name, which needs no configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skills_pipe.pipeline.checks.finding import Checked, Finding
from skills_pipe.pipeline.commands.sft.checks.trainer import NO_CONFIG, config_of, shape_of, trainer_of
from skills_pipe.pipeline.commands.sft.keys import keys_of
from skills_pipe.pipeline.options.overrides import path_of

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Request
    from skills_pipe.pipeline.commands.sft.options import SftOptions


def check_base_model(request: Request[SftOptions]) -> Checked:
    """Whether the base model can be read, and has the layers that are to get adapters."""
    from skills_pipe.pipeline.checks.model import check_adapted_layers, check_folder
    from skills_pipe.training.config.adapters import adapter_spec

    subject = "base model"
    config = config_of(request)
    if config is None:
        return Checked(subject=subject, left_out=NO_CONFIG)
    if request.options.run_after:
        return Checked(subject=subject, left_out="a run before may make it, or make it anew")
    name, shape = config.policy.model_name, shape_of(request, config)
    folder = request.look(name)
    if shape is None and not (folder and folder.exists):
        return Checked(subject=subject, left_out="it cannot be looked at")
    findings = [*(check_folder(request, name, folder) if folder else ())]
    if shape is not None:
        findings += check_adapted_layers(config.policy, shape)
    elif not findings and adapter_spec(config.policy) is not None:
        return Checked(subject=subject, left_out="its layers are not known here")
    return Checked(subject=subject, findings=tuple(findings))


def check_packed_model(request: Request[SftOptions]) -> list[Finding]:
    """Whether the base model is an archive, which has to be unpacked first."""
    from skills_pipe.pipeline.checks.model import check_archive

    trainer = trainer_of(request)
    name = path_of(keys_of(trainer.command), "policy.model_name") if trainer else None
    return [*check_archive(request, name)] if name else []
