"""``ns nemo_rl sft``: fine-tune a model in a chain of jobs, then make one Hugging Face model of the checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skills_pipe.artifacts.names import FINAL_HF_MODEL
from skills_pipe.errors import OptionError
from skills_pipe.pipeline.cluster.config import ChainKind, ClusterConfig
from skills_pipe.pipeline.commands.conversion import LAST, Conversion, JobSetting, check_output, conversion
from skills_pipe.pipeline.commands.data_names import check_data
from skills_pipe.pipeline.commands.sft.checks.base_model import check_base_model, check_packed_model
from skills_pipe.pipeline.commands.sft.checks.best import check_best
from skills_pipe.pipeline.commands.sft.checks.downloads import check_downloads
from skills_pipe.pipeline.commands.sft.checks.keys import check_training
from skills_pipe.pipeline.commands.sft.checks.kinds import check_kinds_of_rows
from skills_pipe.pipeline.commands.sft.checks.rows import check_rows
from skills_pipe.pipeline.commands.sft.checks.sizes import check_fit, check_size
from skills_pipe.pipeline.commands.sft.elsewhere import in_place_of
from skills_pipe.pipeline.commands.sft.options import SftOptions
from skills_pipe.pipeline.commands.sft.training import STAGE, training_job, training_stage
from skills_pipe.pipeline.console.command import Command
from skills_pipe.pipeline.launch import launch
from skills_pipe.pipeline.options.groups import resources
from skills_pipe.pipeline.plan import Job, Plan, Stage, chain, gate

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Check


def plan(options: SftOptions, extras: tuple[str, ...], cluster: ClusterConfig) -> Plan:
    """Training as a chain of segments, then the conversion: ``sft-0 .. sft-N -> convert``, or ``-> average``.

    What decides the result is in the identity of the training stage: model, data, backend and the user's keys. How
    many nodes and GPUs it runs on changes rounding only, and is left out.
    """
    _check(options, cluster)
    output_dir = cluster.absolute(options.output_dir)
    log_dir = cluster.absolute(options.log_dir) if options.log_dir else output_dir
    stages: tuple[Stage, ...] = ()
    segments: tuple[Job, ...] = ()
    if options.num_training_jobs:
        job = training_job(options, extras, cluster, log_dir)
        stages = (training_stage(options, extras, job, cluster),)
        segments = chain(
            job,
            count=options.num_training_jobs,
            requeue=cluster.chain is ChainKind.REQUEUE and not cluster.is_local,
        )
    final = cluster.absolute(options.final_hf_path or f"{output_dir}/{FINAL_HF_MODEL}")
    check_output(final, output_dir, options.average_steps, flag="--final_hf_path")
    more_stages, more_jobs = conversion(
        Conversion(
            training_dir=output_dir,
            output=final,
            step=options.conversion_step,
            average=options.average_steps,
            remove=options.remove_checkpoints_after_average,
        ),
        JobSetting(
            expname=options.expname,
            log_dir=log_dir,
            resources=resources(options, cluster, num_gpus=0, aside=True),
            edges=gate(segments),
            upstream=STAGE if segments else None,
            working_dir=cluster.working_dir,
        ),
    )
    return Plan(
        expname=options.expname,
        command="nemo_rl sft",
        stages=stages + more_stages,
        jobs=segments + more_jobs,
        mounts=cluster.mounts,
        run_after=options.run_after,
    )


CHECKS: dict[str, Check[SftOptions]] = {
    "keys of the trainer": check_training,
    "metric of checkpoints": check_best,
    "base model": check_base_model,
    "packed base model": check_packed_model,
    "rows of the data": check_rows,
    "kinds of rows": check_kinds_of_rows,
    "downloads": check_downloads,
    "parallel sizes": check_size,
    "memory of the GPUs": check_fit,
}
"""Subject -> check, of this command."""

COMMAND = Command(options=SftOptions, run=launch(plan, checks=CHECKS), takes_extras=True, elsewhere=in_place_of)


def _check(options: SftOptions, cluster: ClusterConfig) -> None:
    if options.num_training_jobs and not options.training_data:
        raise OptionError(
            "--training_data is missing", fix="name the data, or set --num_training_jobs=0 to convert only"
        )
    if options.num_gpus is None and options.num_training_jobs and not cluster.is_local:
        raise OptionError("--num_gpus is missing", fix="say how many GPUs of each node to train on")
    for name in ("training_data", "validation_data"):
        path = getattr(options, name)
        if path:
            check_data(name, path, cluster)
    for name, least in (("num_gpus", 0), ("num_nodes", 1), ("num_training_jobs", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise OptionError(f"--{name} is {value}", fix=f"set it to {least} or more")
    if options.average_steps and options.conversion_step != LAST:
        raise OptionError("--average_steps and --conversion_step exclude each other", fix="drop one of them")
    if options.disable_wandb and options.wandb_project:
        raise OptionError("--disable_wandb and --wandb_project exclude each other", fix="drop one of them")
    if options.remove_checkpoints_after_average and not options.average_steps:
        raise OptionError("--remove_checkpoints_after_average needs --average_steps", fix="name the steps to average")
