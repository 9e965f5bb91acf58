"""``ns nemo_rl sft``: fine-tune a model in a chain of jobs, then make one Hugging Face model of the checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skills_pipe.artifacts.names import CHECKPOINTS, FINAL_HF_MODEL, METRICS, TRAINING_LOGS
from skills_pipe.errors import OptionError
from skills_pipe.pipeline.cluster.config import ChainKind, ClusterConfig
from skills_pipe.pipeline.commands.conversion import LAST, Conversion, JobSetting, conversion
from skills_pipe.pipeline.commands.data_names import as_jobs_see, check_data
from skills_pipe.pipeline.commands.profiling import profiled, profiling_keys
from skills_pipe.pipeline.commands.sft_best import check_best
from skills_pipe.pipeline.commands.sft_checks import (
    check_base_model,
    check_fit,
    check_rows,
    check_size,
    check_training,
)
from skills_pipe.pipeline.commands.sft_hub import check_downloads
from skills_pipe.pipeline.commands.sft_inputs import inputs_of, keys_of
from skills_pipe.pipeline.commands.sft_kinds import check_kinds_of_rows
from skills_pipe.pipeline.commands.sft_model import check_packed_model
from skills_pipe.pipeline.commands.sft_options import WANDB_PROJECT, Backend, SftOptions
from skills_pipe.pipeline.console.command import Command as LauncherCommand
from skills_pipe.pipeline.decisions.decide import OnChange
from skills_pipe.pipeline.launch import launch
from skills_pipe.pipeline.options.groups import resources
from skills_pipe.pipeline.options.overrides import of_result, override, path_of
from skills_pipe.pipeline.plan import Command, Job, Launch, Plan, Stage, chain, gate

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Check

STAGE = "sft"
ENTRY = "skills_pipe.training.sft"


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
        job = _training_job(options, extras, cluster, log_dir)
        stages = (_training_stage(options, extras, job, cluster),)
        segments = chain(
            job,
            count=options.num_training_jobs,
            requeue=cluster.chain is ChainKind.REQUEUE and not cluster.is_local,
        )
    final = options.final_hf_path
    more_stages, more_jobs = conversion(
        Conversion(
            training_dir=output_dir,
            output=cluster.absolute(final) if final else f"{output_dir}/{FINAL_HF_MODEL}",
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

_ELSEWHERE = {
    "--config": "only the trainer itself, python -m skills_pipe.training.sft, reads a YAML file; write its keys as "
    "++key=value, or a section as '++section={key: value}'"
}

COMMAND = LauncherCommand(options=SftOptions, run=launch(plan, checks=CHECKS), takes_extras=True, elsewhere=_ELSEWHERE)


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


def _training_stage(options: SftOptions, extras: tuple[str, ...], job: Job, cluster: ClusterConfig) -> Stage:
    logs = path_of(keys_of(job.command), "logger.log_dir")
    return Stage(
        name=STAGE,
        output=f"{cluster.absolute(options.output_dir)}/{CHECKPOINTS}",
        options={"backend": options.backend.value, **of_result(extras)},
        inputs=inputs_of(keys_of(job.command), cluster),
        metrics=f"{cluster.absolute(logs)}/{METRICS}" if logs else None,
    )


def _training_job(options: SftOptions, extras: tuple[str, ...], cluster: ClusterConfig, log_dir: str) -> Job:
    return Job(
        name=f"{options.expname}-{STAGE}",
        stage=STAGE,
        command=Command(
            argv=profiled(
                ("python", "-m", ENTRY, *_keys(options, cluster, log_dir), *extras),
                options.profile_step_range,
                options.profiler,
                f"{log_dir}/{TRAINING_LOGS}",
            ),
            container="nemo-rl",
            launch=Launch.PER_GPU,
            working_dir=cluster.working_dir,
            installation_command=options.installation_command,
        ),
        resources=resources(options, cluster, num_gpus=options.num_gpus or 0, num_nodes=options.num_nodes),
        log_dir=f"{log_dir}/{TRAINING_LOGS}",
    )


def _keys(options: SftOptions, cluster: ClusterConfig, log_dir: str) -> tuple[str, ...]:
    megatron = options.backend is Backend.MEGATRON
    keys: dict[str, str | int | bool | tuple[int, ...]] = {
        "policy.model_name": cluster.absolute_or_id(options.hf_model),
        "cluster.gpus_per_node": max(1, options.num_gpus or 0),
        "cluster.num_nodes": options.num_nodes,
        "logger.log_dir": f"{log_dir}/{TRAINING_LOGS}",
        "checkpointing.checkpoint_dir": f"{cluster.absolute(options.output_dir)}/{CHECKPOINTS}",
        "policy.dtensor_cfg.enabled": not megatron,
        "policy.megatron_cfg.enabled": megatron,
    }
    if options.on_change is OnChange.CONTINUE:
        keys["checkpointing.on_change"] = "continue"
    if options.needed_steps:
        keys["checkpointing.keep_steps"] = options.needed_steps
    if options.training_data:
        keys["data.train_data_path"] = as_jobs_see(options.training_data, cluster)
    if options.validation_data:
        keys["data.val_data_path"] = as_jobs_see(options.validation_data, cluster)
    keys |= profiling_keys(options.profile_step_range, options.profiler)
    return tuple(override(key, value) for key, value in {**keys, **_wandb_keys(options, cluster)}.items())


def _wandb_keys(options: SftOptions, cluster: ClusterConfig) -> dict[str, str | int | bool]:
    project = options.wandb_project or (None if cluster.is_local else WANDB_PROJECT)
    if options.disable_wandb or project is None:
        return {"logger.wandb_enabled": False}
    # The same id in every job of the chain: they write to one run.
    parts = [options.expname, options.wandb_group, project]
    keys: dict[str, str | int | bool] = {
        "logger.wandb_enabled": True,
        "logger.wandb.project": project,
        "logger.wandb.name": options.expname,
        "logger.wandb.id": "-".join(part for part in parts if part),
    }
    if options.wandb_project is None:
        # Nobody has asked for it: where it cannot log in, training goes on without.
        keys["logger.wandb.optional"] = True
    if options.wandb_group:
        keys["logger.wandb.group"] = options.wandb_group
    too_long = [key for key, value in keys.items() if isinstance(value, str) and len(value) > 128]
    if too_long:
        raise OptionError(f"{too_long[0]} has more than 128 characters, the most that Weights & Biases takes")
    return keys
