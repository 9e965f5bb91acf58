"""The stage of training and its job: what the trainer is told, and what decides the result."""

from __future__ import annotations

from skills_pipe.artifacts.names import (
    CHECKPOINTS,
    LOSS_PICTURE,
    METRICS,
    TRACKED_RUNS,
    TRAINING_LOGS,
    VALIDATION_ANSWERS,
)
from skills_pipe.errors import OptionError
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.cluster.paths import is_below
from skills_pipe.pipeline.commands.data_names import as_jobs_see
from skills_pipe.pipeline.commands.profiling import profiled, profiling_keys
from skills_pipe.pipeline.commands.sft.inputs import inputs_of
from skills_pipe.pipeline.commands.sft.keys import Keys, keys_of, read_keys
from skills_pipe.pipeline.commands.sft.options import WANDB_PROJECT, Backend, SftOptions
from skills_pipe.pipeline.decisions.decide import OnChange
from skills_pipe.pipeline.options.groups import resources
from skills_pipe.pipeline.options.overrides import of_result, override, path_of
from skills_pipe.pipeline.plan import Command, Job, Launch, Stage

STAGE = "sft"
ENTRY = "skills_pipe.training.sft"

_OF_ITS_STEPS = (METRICS, LOSS_PICTURE, TRACKED_RUNS, VALIDATION_ANSWERS)
"""What a training writes to ``logger.log_dir`` that another one would write over, or go on with."""


def training_stage(options: SftOptions, extras: tuple[str, ...], job: Job, cluster: ClusterConfig) -> Stage:
    """What training makes of what; which of the user's keys decide its result."""
    keys = keys_of(job.command)
    return Stage(
        name=STAGE,
        output=f"{cluster.absolute(options.output_dir)}/{CHECKPOINTS}",
        options={"backend": options.backend.value, **_held_out(keys), **of_result(extras)},
        inputs=inputs_of(keys, cluster),
        set_aside_with=_of_its_steps(keys, cluster),
    )


def _held_out(keys: Keys) -> dict[str, str]:
    """Which of the inputs is not trained on: two files that change places are another training."""
    path = path_of(keys, "data.val_data_path")
    return {"validation_data": path} if path else {}


def _of_its_steps(keys: Keys, cluster: ClusterConfig) -> tuple[str, ...]:
    """What the trainer writes of its steps: a training that begins anew has a curve of its own.

    It has runs of its own at MLflow and SwanLab too, whose ids are kept there. At Weights & Biases it goes on with the
    run of the old one: that id is given (see :func:`_wandb_keys`), the same for every training of the experiment.

    A folder for TensorBoard elsewhere than with the logs may be one that other trainings write to, too.
    """
    config, _ = read_keys(keys)
    if config is None:
        return ()
    folder = cluster.absolute(config.logger.log_dir)
    events = cluster.absolute(config.logger.tensorboard.log_dir)
    own = (events,) if events != folder and is_below(events, folder) else ()
    return (*(f"{folder}/{name}" for name in _OF_ITS_STEPS), *own)


def training_job(options: SftOptions, extras: tuple[str, ...], cluster: ClusterConfig, log_dir: str) -> Job:
    """One segment of training, on every GPU or CPU process that is asked for.

    Args:
        options: of the command.
        extras: the user's keys of the trainer, which win.
        cluster: where it runs.
        log_dir: absolute; the folder of its logs lies there.
    """
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
