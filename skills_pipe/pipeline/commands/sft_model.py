"""Check of the base model by its name alone, which needs no configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skills_pipe.pipeline.checks.finding import Finding
from skills_pipe.pipeline.commands.sft_inputs import keys_of
from skills_pipe.pipeline.options.overrides import path_of

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Request
    from skills_pipe.pipeline.commands.sft_options import SftOptions


def check_packed_model(request: Request[SftOptions]) -> list[Finding]:
    """Whether the base model is an archive, which has to be unpacked first."""
    from skills_pipe.pipeline.checks.model import check_archive

    trainer = next((job for job in request.plan.jobs if job.segment), None)
    name = path_of(keys_of(trainer.command), "policy.model_name") if trainer else None
    return [*check_archive(request, name)] if name else []
