"""The values that decide a run, in a dozen lines for people; printed before the first step."""

from __future__ import annotations

from dataclasses import dataclass

from skills_pipe.training.config import schedule
from skills_pipe.training.config.schema import DatasetConfig, ObjectConfig, SchedulerConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the description."""

    name: str
    value: str


def describe(config: TrainingConfig, *, num_samples: int | None = None) -> list[Row]:
    """What ``config`` amounts to; with the number of training samples, also in steps."""
    sections = (_model(config), _batches(config), _optimizer(config), _length(config, num_samples), _places(config))
    return [row for section in sections for row in section]


def _model(config: TrainingConfig) -> list[Row]:
    policy = config.policy
    template = policy.tokenizer.chat_template
    named = "passthrough" if template is None else template if len(template) <= 40 else f"{template[:37]}..."
    tokenizer = "" if policy.tokenizer.name == policy.model_name else f", tokenizer {policy.tokenizer.name}"
    return [
        Row(name="model", value=f"{policy.model_name}{tokenizer}"),
        Row(name="chat template", value=named),
        Row(name="backend", value=f"{'megatron' if policy.megatron_cfg.enabled else 'fsdp'}, {policy.precision}"),
    ]


def _batches(config: TrainingConfig) -> list[Row]:
    policy = config.policy
    packing = policy.sequence_packing
    rows = (
        f"packed into rows of {packing.train_mb_tokens} tokens ({packing.algorithm})"
        if packing.enabled
        else f"in microbatches of {policy.train_micro_batch_size}"
    )
    return [
        Row(name="batch", value=f"{policy.train_global_batch_size} samples per step, {rows}"),
        Row(
            name="longest sample",
            value=f"{config.data.max_input_seq_length} tokens, longer ones: {config.data.overlong}",
        ),
    ]


def _optimizer(config: TrainingConfig) -> list[Row]:
    policy = config.policy
    clipping = "none" if policy.max_grad_norm is None else f"global norm {policy.max_grad_norm:g}"
    if policy.megatron_cfg.enabled or policy.optimizer is None:
        megatron = policy.megatron_cfg
        rate = f"{megatron.optimizer.lr:g} to {megatron.optimizer.min_lr:g}, {megatron.scheduler.lr_decay_style}"
        return [Row(name="optimizer", value=f"{megatron.optimizer.optimizer}, lr {rate}")]
    return [
        Row(name="optimizer", value=_object(policy.optimizer)),
        Row(name="learning rate", value=_schedule(policy.scheduler)),
        Row(name="gradient clipping", value=clipping),
    ]


def _length(config: TrainingConfig, num_samples: int | None) -> list[Row]:
    sft = config.sft
    limits = [(sft.max_num_epochs, "epochs"), (sft.max_num_steps, "steps")]
    length = " or ".join(f"{limit} {unit}" for limit, unit in limits if limit is not None)
    if num_samples is not None:
        total = schedule.total_steps(config, num_samples)
        length = f"{total} steps ({length}; {schedule.steps_per_epoch(config, num_samples)} steps per epoch)"
    return [Row(name="length", value=length), Row(name="validation", value=_validation(config))]


def _validation(config: TrainingConfig) -> str:
    sft = config.sft
    if not config.data.validation:
        return "none"
    times = [
        *(["at the start"] if sft.val_at_start else []),
        *([f"every {sft.val_period} steps"] if sft.val_period else []),
        *(["at the end"] if sft.val_at_end else []),
    ]
    share = f"{sft.val_batches} batches of {sft.val_global_batch_size}" if sft.val_batches > 0 else "all rows"
    return f"{', '.join(times) or 'never'}, {share}"


def _places(config: TrainingConfig) -> list[Row]:
    settings = config.checkpointing
    kept = "all kept" if settings.keep_top_k is None else f"best {settings.keep_top_k} kept by {settings.metric_name}"
    period = f"every {settings.save_period} steps and at the end" if settings.save_period else "at the end"
    saving = f"{settings.checkpoint_dir}, {period}, {kept}" if settings.enabled else "not saved"
    return [
        Row(name="training data", value=_datasets(config.data.train)),
        Row(name="validation data", value=_datasets(config.data.validation)),
        Row(name="checkpoints", value=saving),
        Row(name="logs", value=config.logger.log_dir),
        Row(name="seed", value=str(config.sft.seed)),
    ]


def _schedule(scheduler: SchedulerConfig | None) -> str:
    if scheduler is None:
        return "constant"
    starts = ("", *(f"from step {step}: " for step in scheduler.milestones))
    return "; ".join(f"{start}{_object(part)}" for start, part in zip(starts, scheduler.parts, strict=True))


def _object(value: ObjectConfig) -> str:
    arguments = ", ".join(f"{name}={argument}" for name, argument in value.kwargs.items())
    return f"{value.name.rpartition('.')[2]}({arguments})"


def _datasets(datasets: tuple[DatasetConfig, ...]) -> str:
    return ", ".join(dataset.data_path or dataset.dataset_name for dataset in datasets) or "none"
