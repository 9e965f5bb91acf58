"""Checks of a training run that need its configuration: the same keys that the trainer will get, read the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skills_pipe.errors import ClusterConfigError, ConfigError
from skills_pipe.pipeline.checks.finding import Finding, error, warning
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime
from skills_pipe.pipeline.examine import Request
from skills_pipe.pipeline.options.overrides import key_of

if TYPE_CHECKING:
    from skills_pipe.pipeline.commands.sft_options import SftOptions
    from skills_pipe.training.config import TrainingConfig


_FLAGS = {
    "policy.model_name": "--hf_model",
    "policy.megatron_cfg.enabled": "--backend",
    "policy.dtensor_cfg.enabled": "--backend",
    "cluster.gpus_per_node": "--num_gpus",
    "cluster.num_nodes": "--num_nodes",
    "data.train_data_path": "--training_data",
    "data.val_data_path": "--validation_data",
    "logger.log_dir": "--log_dir",
    "logger.wandb.project": "--wandb_project",
}
"""Keys that the launcher sets, and the flags that they come from."""

_FIXED = {
    "checkpointing.checkpoint_dir": "--output_dir",
    "cluster.gpus_per_node": "--num_gpus",
    "cluster.num_nodes": "--num_nodes",
}
"""Keys that only the flags may set: later stages, or the job itself, go by the flag."""


def check_training(request: Request[SftOptions]) -> list[Finding]:
    """What is wrong with the trainer's keys, and with the steps that are to be converted or averaged."""
    from skills_pipe.training.config import ConfigErrors, load_config

    trainers = [job for job in request.plan.jobs if job.segment]
    if not trainers:
        return []
    keys = [word for word in trainers[0].command.argv if word.startswith(("+", "~"))]
    try:
        config = load_config(None, keys)
    except ConfigErrors as problems:
        return [_finding(problem, request.extras) for problem in problems.problems]
    except ConfigError as problem:
        return [_finding(problem, request.extras)]
    return [
        *_check_fixed(request.extras),
        *_check_steps(request.options, config),
        *_check_wandb(config, request.cluster),
    ]


def _check_fixed(extras: tuple[str, ...]) -> list[Finding]:
    typed = [key_of(word) for word in extras]
    return [
        error(f"{key} follows from {flag}", where=f"++{key}", fix=f"give {flag} instead")
        for key, flag in _FIXED.items()
        if key in typed
    ]


def _check_wandb(config: TrainingConfig, cluster: ClusterConfig) -> list[Finding]:
    """A trainer that cannot log in to Weights & Biases stops at once, after its wait in the queue."""
    if not config.logger.wandb_enabled or cluster.is_local:
        return []
    try:
        environment = cluster.environment()
    except ClusterConfigError:
        return []  # told by the checks of the cluster
    if environment.keys() & {"WANDB_API_KEY", "WANDB_MODE"}:
        return []
    what = "jobs log to Weights & Biases, and WANDB_API_KEY is not set"
    fix = "export it, or add --disable_wandb"
    # Without containers a key in the home folder may do.
    in_containers = cluster.container_runtime is not ContainerRuntime.NONE
    return [error(what, fix=fix) if in_containers else warning(what, fix=fix)]


def _finding(problem: ConfigError, extras: tuple[str, ...]) -> Finding:
    """A problem of the configuration; one with a key that the launcher has set names the flag."""
    typed = {key_of(word) for word in extras}
    where = problem.where
    for key, flag in _FLAGS.items():
        if key not in typed and f"++{key}=" in (where or ""):
            where = flag
    return error(problem.what, where=where, fix=problem.fix)


def _check_steps(options: SftOptions, config: TrainingConfig) -> list[Finding]:
    where = "--average_steps" if options.average_steps else "--conversion_step"
    steps = options.average_steps or ((int(options.conversion_step),) if options.conversion_step.isdecimal() else ())
    period, last = config.checkpointing.save_period, config.sft.max_num_steps
    findings = []
    for step in steps:
        if last is not None and step > last:
            fix = "name earlier steps, or train longer"
            findings.append(error(f"step {step} is never reached: sft.max_num_steps is {last}", where=where, fix=fix))
        elif (not period or step % period) and step != last:
            rule = f"every {period} steps" if period else "at the end only"
            what = f"step {step} is not saved: checkpoints are saved {rule} (checkpointing.save_period)"
            # Without a number of steps the last one is not known here; it is always saved.
            only_maybe = last is None
            findings.append(
                warning(f"{what}, and at the end" if period else what, where=where)
                if only_maybe
                else error(what, where=where, fix=_period_advice(period))
            )
    return findings + _check_kept(steps, config, where)


def _period_advice(period: int) -> str:
    setting = "set ++checkpointing.save_period"
    return f"name multiples of {period}, or {setting}" if period else setting


def _check_kept(steps: tuple[int, ...], config: TrainingConfig, where: str) -> list[Finding]:
    """Old checkpoints are deleted as training goes on; those that are still needed must not be among them."""
    keep, last = config.checkpointing.keep_top_k, config.sft.max_num_steps
    if not steps or keep is None or last is None or not config.checkpointing.save_period:
        return []
    saved = -(-last // config.checkpointing.save_period)
    if saved <= keep:
        return []
    what = f"{saved} checkpoints will be saved and {keep} kept (checkpointing.keep_top_k): some steps may be gone"
    return [warning(what, where=where, fix=f"set ++checkpointing.keep_top_k={saved}")]
