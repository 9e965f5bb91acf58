"""What must hold between keys; the schema alone sees one key at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import schedule
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.rules.adapters import broken_adapter_rules
from skills_pipe.training.config.rules.answers import answer_metric, broken_answer_rules
from skills_pipe.training.config.rules.arguments import broken_argument_rules
from skills_pipe.training.config.rules.classes import broken_class_rules
from skills_pipe.training.config.rules.compile import broken_compile_rules
from skills_pipe.training.config.rules.kernels import broken_kernel_rules
from skills_pipe.training.config.rules.parallel import broken_parallel_rules
from skills_pipe.training.config.rules.quantization import broken_quantization_rules
from skills_pipe.training.config.schema import TrainingConfig

UNBOUNDED: Final = 10**8
"""From here on, a number of steps or epochs is meant as "no limit"."""


def broken_rules(config: TrainingConfig, origins: Origins) -> list[ConfigError]:
    """Every rule that a canonical configuration breaks."""
    return [
        *_run_length(config, origins),
        *_checkpointing(config, origins),
        *_backend(config, origins),
        *_batches(config, origins),
        *_learning_rate(config, origins),
        *_watches(config, origins),
        *broken_adapter_rules(config, origins),
        *broken_answer_rules(config, origins),
        *broken_argument_rules(config, origins),
        *broken_class_rules(config, origins),
        *broken_compile_rules(config, origins),
        *broken_kernel_rules(config, origins),
        *broken_parallel_rules(config, origins),
        *broken_quantization_rules(config, origins),
    ]


def _run_length(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    limits = (config.sft.max_num_epochs, config.sft.max_num_steps)
    if all(limit is None or limit >= UNBOUNDED for limit in limits):
        yield ConfigError(
            "neither sft.max_num_epochs nor sft.max_num_steps bounds the run",
            where=origins.where("sft.max_num_steps" if config.sft.max_num_steps else "sft.max_num_epochs"),
            fix="set one of them",
        )


def _checkpointing(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    settings = config.checkpointing
    name = settings.metric_name
    if name is not None and not name.startswith(("val:", "train:")):
        yield ConfigError(
            f"checkpointing.metric_name {name!r} does not say which metrics it is from",
            where=origins.where("checkpointing.metric_name"),
            fix="write val:NAME or train:NAME, such as val:val_loss",
        )
    yield from _ranked_by(config, origins)
    if settings.higher_is_better and (name or "").endswith("loss"):
        yield ConfigError(
            f"checkpointing.metric_name is {name!r}, and with checkpointing.higher_is_better=true the worst checkpoint "
            "would be the best",
            where=origins.where("checkpointing.higher_is_better"),
            fix="set checkpointing.higher_is_better=false, or name a metric of which more is better",
        )
    if settings.checkpoint_must_save_by is not None:
        try:
            schedule.seconds(settings.checkpoint_must_save_by)
        except ConfigError as error:
            where = origins.where("checkpointing.checkpoint_must_save_by")
            yield ConfigError(f"checkpointing.checkpoint_must_save_by: {error.what}", where=where, fix=error.fix)
    if settings.ft_save_period is not None and settings.ft_keep_latest_k is None:
        yield ConfigError(
            "checkpointing.ft_save_period is set without checkpointing.ft_keep_latest_k",
            where=origins.where("checkpointing.ft_save_period"),
            fix="say how many of these checkpoints to keep",
        )


def _ranked_by(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    """Metrics by name must be some that there are: without one, checkpoints would be ranked by their age, unsaid."""
    split = [dataset for dataset in config.data.train if dataset.split_validation_size]
    sets = [dataset.name for dataset in (*config.data.validation, *split)]
    losses = ["val:val_loss", *(f"val:{one}/val_loss" for one in sets if len(sets) > 1)]
    stopping = config.sft.early_stopping
    ranking = config.checkpointing.metric_name or ""
    named = [("checkpointing.metric_name", ranking, "a run", [*losses, "train:loss"])] if ":" in ranking else []
    if answer_metric(ranking, sets, config.sft.val_answers):
        named = []
    named += [("sft.early_stopping.metric", stopping.metric, "validation", losses)] if stopping is not None else []
    for key, name, of, known in named:
        of_set = name.startswith("val:") and "/" in name
        if name in known or (of_set and not sets):
            continue
        what = "the loss of no validation dataset" if of_set else f"no metric of {of}"
        yield ConfigError(f"{key} {name!r} is {what}", where=origins.where(key), fix=f"give one of {', '.join(known)}")
    if stopping is not None and not sets:
        yield ConfigError(
            "sft.early_stopping needs validation data",
            where=origins.where("sft.early_stopping"),
            fix="set data.val_data_path, data.validation or data.split_validation_size",
        )


def _watches(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    stopping, decay, steps = config.sft.early_stopping, config.sft.ema_decay, config.logger.profile_step_range
    if stopping is not None and config.sft.val_period == 0:
        yield ConfigError(
            "sft.early_stopping needs validations, and sft.val_period is 0",
            where=origins.where("sft.early_stopping"),
            fix="say every how many steps to validate",
        )
    if decay is not None and decay >= 1:
        yield ConfigError(
            f"sft.ema_decay is {decay:g}, and must be less than 1",
            where=origins.where("sft.ema_decay"),
            fix="try 0.999",
        )
    if steps is not None:
        try:
            schedule.step_range(steps)
        except ConfigError as error:
            where = origins.where("logger.profile_step_range")
            yield ConfigError(error.what, where=where, fix=error.fix)


def _backend(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    fsdp, megatron = config.policy.dtensor_cfg.enabled, config.policy.megatron_cfg.enabled
    if fsdp == megatron:
        yield ConfigError(
            f"{'both' if fsdp else 'none'} of the backends policy.dtensor_cfg and policy.megatron_cfg "
            f"{'are' if fsdp else 'is'} enabled",
            where=origins.where("policy.megatron_cfg.enabled" if fsdp else "policy.dtensor_cfg.enabled"),
            fix="enable exactly one",
        )
    if fsdp and config.policy.optimizer is None:
        yield ConfigError(
            "policy.optimizer is null, but the fsdp backend needs one",
            where=origins.where("policy.optimizer"),
            fix="name a class, such as torch.optim.AdamW",
        )


def _batches(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    policy = config.policy
    if policy.sequence_packing.enabled and policy.dynamic_batching.enabled:
        yield ConfigError(
            "policy.sequence_packing and policy.dynamic_batching are both enabled",
            where=origins.where("policy.dynamic_batching.enabled"),
            fix="disable one of them",
        )
    for name, batching in (
        ("sequence_packing", policy.sequence_packing),
        ("dynamic_batching", policy.dynamic_batching),
    ):
        if batching.enabled and batching.train_mb_tokens < config.data.max_input_seq_length:
            yield ConfigError(
                f"policy.{name}.train_mb_tokens is {batching.train_mb_tokens}, but a sample may have "
                f"{config.data.max_input_seq_length} tokens",
                where=origins.where(f"policy.{name}.train_mb_tokens"),
                fix="raise it to policy.max_total_sequence_length at least",
            )
    if config.data.max_input_seq_length > policy.max_total_sequence_length:
        yield ConfigError(
            f"data.max_input_seq_length is {config.data.max_input_seq_length}, more than "
            f"policy.max_total_sequence_length, {policy.max_total_sequence_length}",
            where=origins.where("data.max_input_seq_length"),
            fix="make them equal",
        )


def _learning_rate(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    """``policy.lr`` and ``policy.weight_decay`` reach an optimizer only where its arguments are no other values."""
    optimizer = config.policy.optimizer
    if not config.policy.dtensor_cfg.enabled or optimizer is None:
        return
    for key, argument in (("policy.lr", "lr"), ("policy.weight_decay", "weight_decay")):
        used = optimizer.kwargs.get(argument)
        overridden = origins.overrides_later(key, f"policy.optimizer.kwargs.{argument}")
        if overridden and used != getattr(config.policy, argument):
            own = "the default of its class" if used is None else used
            yield ConfigError(
                f"{key} has no effect: the optimizer has its own {argument}, {own}",
                where=origins.where(key),
                fix=f"set policy.optimizer.kwargs.{argument} instead",
            )
