"""Section ``policy``: the model, its optimizer, its batches and how it is spread over ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from skills_pipe.training.config.schema.declare import Key
from skills_pipe.training.config.schema.dtensor import DtensorConfig
from skills_pipe.training.config.schema.megatron import MegatronConfig


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """The tokenizer and its chat template."""

    name: Annotated[
        str | None, Key("Tokenizer: a folder or a Hugging Face model; null: policy.model_name.", absent=None)
    ]
    chat_template: Annotated[
        str | None,
        Key(
            "default (the tokenizer's), null (messages are joined as they are), infer_from_data (null for input/output "
            "rows, default for messages), a Jinja template, or the path of a .jinja file.",
            absent="default",
        ),
    ]
    custom_template: Annotated[str | None, Key("Older name of chat_template for a Jinja template.", absent=None)]
    chat_template_kwargs: Annotated[Mapping[str, Any] | None, Key("Variables for the chat template.", absent=None)]


@dataclass(frozen=True, kw_only=True)
class DynamicBatchingConfig:
    """Microbatches of about equal token count without packing."""

    enabled: Annotated[bool, Key("Group samples of similar length into microbatches by token count.")]
    train_mb_tokens: Annotated[int, Key("Tokens in one microbatch.", minimum=1)]
    sequence_length_round: Annotated[int, Key("Lengths are rounded up to a multiple of this.", minimum=1)]


@dataclass(frozen=True, kw_only=True)
class SequencePackingConfig:
    """Several samples in one row; attention never crosses from one to another."""

    enabled: Annotated[bool, Key("Pack samples into rows of train_mb_tokens.")]
    train_mb_tokens: Annotated[int, Key("Tokens in one packed row.", minimum=1)]
    algorithm: Annotated[
        Literal[
            "modified_first_fit_decreasing",
            "first_fit_decreasing",
            "first_fit_shuffle",
            "best_fit_decreasing",
            "subset_sum",
            "concatenative",
        ],
        Key("How samples are put into rows.", lower=True),
    ]
    microbatch_order: Annotated[
        Literal["packer", "largest_first"], Key("Order of the rows within a step.", absent="packer")
    ]
    scope: Annotated[
        Literal["batch", "dataset"],
        Key(
            "What is packed: the samples of each step, or all samples once; then train_global_batch_size counts rows "
            "and an epoch has fewer steps.",
            absent="batch",
        ),
    ]
    sequence_length_round: Annotated[int, Key("Accepted as NeMo-RL does; has no effect.", minimum=1)]


@dataclass(frozen=True, kw_only=True)
class ObjectConfig:
    """A class and what it is made with."""

    name: Annotated[str, Key("Import path of the class.")]
    kwargs: Annotated[Mapping[str, Any], Key("Keyword arguments of the class.", absent={}, numbers=True)]


@dataclass(frozen=True, kw_only=True)
class MilestonesConfig:
    """The steps at which one scheduler hands over to the next."""

    milestones: Annotated[tuple[int, ...], Key("One step for each scheduler but the first.")]


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """Learning rate schedulers that follow each other; one step of them per optimizer step.

    Attributes:
        parts: the schedulers.
        milestones: the steps at which ``parts[1]``, ``parts[2]``, ... take over; one less than parts.
    """

    parts: tuple[ObjectConfig, ...]
    milestones: tuple[int, ...]


SchedulerSection = ObjectConfig | tuple[ObjectConfig | MilestonesConfig, ...] | None
"""``policy.scheduler`` as it is written: one scheduler, or a list of schedulers that ends with their milestones."""


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """The model, its optimizer, its batches and how it is spread over ranks."""

    model_name: Annotated[
        str,
        Key(
            "Model to start from: a folder or a Hugging Face model.",
            also=("model_name_or_path", "pretrained_model_name_or_path", "base_model"),
        ),
    ]
    tokenizer: Annotated[TokenizerConfig, Key("The tokenizer and its chat template.")]
    train_global_batch_size: Annotated[
        int,
        Key(
            "Samples in one optimizer step, over all ranks.",
            minimum=1,
            also=("global_batch_size", "batch_size", "gradient_accumulation_steps"),
        ),
    ]
    train_micro_batch_size: Annotated[
        int,
        Key(
            "Samples that one rank takes at once; keep 1 with packing.",
            minimum=1,
            also=("micro_batch_size", "per_device_train_batch_size", "gradient_accumulation_steps"),
        ),
    ]
    max_total_sequence_length: Annotated[
        int,
        Key(
            "Longest sample in tokens.",
            minimum=2,
            also=("max_seq_length", "max_length", "seq_length", "seq_len", "sequence_len", "cutoff_len"),
        ),
    ]
    precision: Annotated[
        Literal["bfloat16", "float16", "float32"],
        Key("Data type of the forward and backward pass.", also=("bf16", "fp16", "dtype", "torch_dtype")),
    ]
    offload_optimizer_for_logprob: Annotated[bool, Key("Accepted as NeMo-RL does; has no effect on fine-tuning.")]
    make_sequence_length_divisible_by: Annotated[
        int | None, Key("Lengths are padded to a multiple of this; null: what the parallel sizes need.", minimum=1)
    ]
    max_grad_norm: Annotated[
        float | None, Key("Global gradient norm is clipped to this; null or 0: no clipping.", minimum=0)
    ]
    neftune_noise_alpha: Annotated[
        float | None,
        Key("Noise on the embeddings while training (NEFTune), such as 5; null: none.", above=0, absent=None),
    ]
    hf_config_overrides: Annotated[Mapping[str, Any], Key("Fields of the model's config.json to change.")]
    tensor_model_parallel_size: Annotated[int, Key("Ranks that share each layer.", minimum=1)]
    pipeline_model_parallel_size: Annotated[int, Key("Ranks that share the stack of layers.", minimum=1)]
    context_parallel_size: Annotated[int, Key("Ranks that share each sequence.", minimum=1)]
    expert_model_parallel_size: Annotated[int, Key("Ranks that share the experts of a mixture.", minimum=1)]
    expert_tensor_parallel_size: Annotated[int, Key("Ranks that share each expert.", minimum=1)]
    sequence_parallel: Annotated[bool, Key("Split activations along the sequence between tensor parallel ranks.")]
    lr: Annotated[float, Key("Learning rate of the packaged optimizers.", minimum=0, also=("learning_rate",))]
    min_lr: Annotated[float, Key("Learning rate at the end of the packaged Megatron schedule.", minimum=0)]
    weight_decay: Annotated[float, Key("Weight decay of the packaged optimizers.", minimum=0)]
    dtensor_cfg: Annotated[DtensorConfig, Key("The fsdp backend.")]
    megatron_cfg: Annotated[MegatronConfig, Key("The megatron backend.")]
    dynamic_batching: Annotated[DynamicBatchingConfig, Key("Microbatches of about equal token count without packing.")]
    sequence_packing: Annotated[
        SequencePackingConfig, Key("Several samples in one row.", also=("packing", "sample_packing"))
    ]
    optimizer: Annotated[
        ObjectConfig | None,
        Key(
            "Optimizer of the fsdp backend; without an lr it trains at policy.lr. Where an override names another one, "
            "the packaged kwargs go, but for lr (policy.lr) and, if policy.weight_decay is set, weight_decay.",
            also=("optim", "adam_beta1", "adam_beta2", "adam_epsilon"),
        ),
    ]
    scheduler: Annotated[
        SchedulerConfig | None,
        Key(
            "Learning rate schedule of the fsdp backend: a class with its kwargs, or a list of them ending with "
            "{milestones: [...]}; null: constant.",
            absent=None,
            written=SchedulerSection,
            also=("warmup_steps", "num_warmup_steps", "warmup_ratio", "lr_scheduler_type", "lr_scheduler"),
        ),
    ]
