"""What the schema accepts and nothing here honours yet: refused with a sentence, or named as without effect."""

from __future__ import annotations

from collections.abc import Iterator

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.parallel import needed_divisor
from skills_pipe.training.config.rules.adapters import adapters_without_effect
from skills_pipe.training.config.rules.parallel import parallel_without_effect
from skills_pipe.training.config.schema import DatasetConfig, PolicyConfig, TrainingConfig

_PACKAGED_MIN_LR = 1e-6
"""``policy.min_lr`` of ``sft.yaml``: what was not set needs no remark."""


def unsupported(config: TrainingConfig, origins: Origins | None = None) -> list[ConfigError]:
    """Everything that ``config`` asks for and that would change the result if it were ignored."""
    return [
        ConfigError(f"{key}: {reason}", where=_where(key, origins) if origins else None, fix=fix)
        for key, reason, fix in (*_backends(config), *_checkpoints(config), *_batches(config), *_data(config))
    ]


def _where(key: str, origins: Origins) -> str:
    """Where a key was set; one of a dataset may come from the key of the same name that all datasets share."""
    shared = f"data.{key.rpartition('.')[2]}"
    return origins.where(shared if key.startswith("data.") and origins.rank(key) == 0 else key)


def without_effect(config: TrainingConfig) -> list[str]:
    """Sentences about settings that are accepted and change nothing, for people who wonder."""
    policy = config.policy
    settings = [
        (
            config.logger.num_val_samples_to_print > 0,
            "logger.num_val_samples_to_print: validation computes the loss only",
        ),
        (
            policy.dtensor_cfg.enabled and policy.min_lr != _PACKAGED_MIN_LR,
            "policy.min_lr: it ends the packaged Megatron schedule; the fsdp backend follows policy.scheduler",
        ),
        (policy.offload_optimizer_for_logprob, "policy.offload_optimizer_for_logprob: fine-tuning has no such phase"),
        (
            # Where it is not set, it is what the ranks need.
            policy.make_sequence_length_divisible_by not in (None, 1, needed_divisor(policy)),
            "policy.make_sequence_length_divisible_by: rows have no padding",
        ),
        (
            policy.dtensor_cfg.clear_cache_every_n_steps is not None,
            "policy.dtensor_cfg.clear_cache_every_n_steps: it is not cleared",
        ),
        (
            config.checkpointing.model_save_format is not None,
            "checkpointing.model_save_format: checkpoints have one format",
        ),
        (
            config.checkpointing.model_cache_dir != "",
            "checkpointing.model_cache_dir: weights are consolidated by the export, which needs no cache",
        ),
        (
            config.checkpointing.model_repo_id != "",
            "checkpointing.model_repo_id: the name on the hub is given where a model is pushed",
        ),
        (config.cluster.segment_size is not None, "cluster.segment_size: nodes are placed by the batch system"),
        (
            policy.dtensor_cfg.recompute_granularity != "full" and not policy.dtensor_cfg.activation_checkpointing,
            "policy.dtensor_cfg.recompute_granularity: nothing is recomputed without activation_checkpointing",
        ),
        *adapters_without_effect(config),
        *parallel_without_effect(config.policy),
    ]
    return [sentence for is_set, sentence in settings if is_set]


Refusal = tuple[str, str, str]


COMPILING_OPTIMIZERS = "torchao."
"""Optimizers of this package compile their steps, and have states that are cut between rows only."""


def _optimizers(policy: PolicyConfig) -> Iterator[Refusal]:
    """Optimizers that do more than one number at a time, where that is not proven."""
    fsdp, name = policy.dtensor_cfg, policy.optimizer.name if policy.optimizer is not None else ""
    if fsdp.cpu_offload and (name.startswith(COMPILING_OPTIMIZERS) or name == "torch.optim.Muon"):
        yield (
            "policy.dtensor_cfg.cpu_offload",
            f"{name} is not proven on shards in host memory",
            "set it to false, or use torch.optim.AdamW",
        )
    if name.startswith(COMPILING_OPTIMIZERS) and max(fsdp.tensor_parallel_size, fsdp.expert_parallel_size) > 1:
        yield (
            "policy.optimizer.name",
            f"the states of {name} cannot be read again where ranks share layers or experts",
            "use torch.optim.AdamW, or set the sizes of tensor and expert parallelism to 1",
        )


def _backends(config: TrainingConfig) -> Iterator[Refusal]:
    policy = config.policy
    if policy.megatron_cfg.enabled:
        yield (
            "policy.megatron_cfg.enabled",
            "there is no megatron backend yet",
            "use the fsdp backend: policy.megatron_cfg.enabled=false policy.dtensor_cfg.enabled=true",
        )
        return
    fsdp = policy.dtensor_cfg
    if policy.pipeline_model_parallel_size > 1:
        yield "policy.pipeline_model_parallel_size", "the fsdp backend has no pipeline", "set it to 1"
    if policy.expert_tensor_parallel_size > 1:
        yield "policy.expert_tensor_parallel_size", "the fsdp backend does not split experts", "set it to 1"
    if fsdp.cpu_offload and fsdp.quantization.load_in_4bit:
        yield (
            "policy.dtensor_cfg.cpu_offload",
            "weights in 4 bit stay on the GPUs: that they travel is not proven",
            "disable one of the two",
        )
    yield from _optimizers(policy)
    if fsdp.custom_parallel_plan is not None:
        yield (
            "policy.dtensor_cfg.custom_parallel_plan",
            "plans of DTensor's parallel styles are not carried out: each family of models has its own plan here",
            "set it to null",
        )
    if fsdp.env_vars:
        yield (
            "policy.dtensor_cfg.env_vars",
            "ranks keep the environment of their job",
            "set them in the cluster's env_vars",
        )
    if fsdp.automodel_kwargs:
        yield "policy.dtensor_cfg.automodel_kwargs", "models are loaded by transformers alone", "leave them out"
    if policy.precision == "float16":
        yield "policy.precision", "float16 needs loss scaling, which is not there", "use bfloat16 or float32"


def _checkpoints(config: TrainingConfig) -> Iterator[Refusal]:
    settings = config.checkpointing
    if settings.save_consolidated:
        yield "checkpointing.save_consolidated", "checkpoints are exported by a step of their own", "run the export"
    if settings.pretrained_checkpoint is not None:
        yield "checkpointing.pretrained_checkpoint", "it cannot be read yet", "name its export in policy.model_name"


def _batches(config: TrainingConfig) -> Iterator[Refusal]:
    packing = config.policy.sequence_packing
    if packing.enabled and packing.scope == "dataset" and config.data.length_order is not None:
        yield (
            "data.length_order",
            "rows that are packed over the whole data set are all of one length",
            "set it to null",
        )


def _data(config: TrainingConfig) -> Iterator[Refusal]:
    for use, datasets in (("train", config.data.train), ("validation", config.data.validation)):
        for dataset in datasets:
            yield from _dataset(f"data.{use}", dataset)


def _dataset(place: str, dataset: DatasetConfig) -> Iterator[Refusal]:
    if dataset.processor != "sft_processor":
        yield f"{place}.processor", f"{dataset.processor!r} is not known", "leave it out"
