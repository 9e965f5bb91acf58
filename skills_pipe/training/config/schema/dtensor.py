"""Section ``policy.dtensor_cfg``: the fsdp backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from skills_pipe.training.config.schema.declare import Key


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters on the fsdp backend."""

    enabled: Annotated[bool, Key("Train adapters; the base model stays as it is.")]
    target_modules: Annotated[tuple[str, ...], Key("Names of modules that get an adapter; * stands for anything.")]
    exclude_modules: Annotated[tuple[str, ...], Key("Names of modules that get none.")]
    match_all_linear: Annotated[bool, Key("Adapters on all linear layers, whatever target_modules says.")]
    dim: Annotated[int, Key("Rank of the adapters.", minimum=1, also=("rank", "r", "lora_rank", "lora_r"))]
    alpha: Annotated[float, Key("Scale of the adapters is alpha / dim.", above=0, also=("lora_alpha",))]
    use_rslora: Annotated[bool, Key("Scale of the adapters is alpha / sqrt(dim) instead (rsLoRA).", absent=False)]
    use_dora: Annotated[bool, Key("Train the lengths of the rows of each weight besides (DoRA).", absent=False)]
    dropout: Annotated[float, Key("Dropout probability in the adapters.", minimum=0, also=("lora_dropout",))]
    dropout_position: Annotated[Literal["pre", "post"], Key("Dropout before or after the adapter.")]
    lora_A_init: Annotated[Literal["xavier", "uniform"], Key("Initial values of matrix A; B starts at zero.")]
    use_triton: Annotated[bool, Key("Accepted as NeMo-RL does; torch computes the adapters, with the same result.")]


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """Frozen weights below adapters in 4 bit, on the fsdp backend (QLoRA); names are those of bitsandbytes."""

    load_in_4bit: Annotated[bool, Key("Keep the linear layers below adapters in 4 bit (QLoRA).")]
    bnb_4bit_quant_type: Annotated[
        Literal["nf4", "fp4"], Key("The 16 values of 4 bit: quantiles of a normal distribution, or small floats.")
    ]
    bnb_4bit_use_double_quant: Annotated[bool, Key("Keep the scales of the blocks in 8 bit instead of float32.")]
    bnb_4bit_compute_dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        Key("Type of the products with these weights; it must be policy.precision. null: as that."),
    ]
    bnb_4bit_quant_storage: Annotated[
        str | None, Key("Accepted as NeMo-Automodel does; they are kept as bytes, which is the same.", absent=None)
    ]


@dataclass(frozen=True, kw_only=True)
class DtensorConfig:
    """The fsdp backend: PyTorch FSDP2 and DTensor."""

    _v2: Annotated[bool, Key("Accepted as NeMo-RL does; there is one version here.", absent=True)]
    enabled: Annotated[bool, Key("Train with this backend.")]
    env_vars: Annotated[Mapping[str, str], Key("Environment variables of the ranks.", absent={})]
    cpu_offload: Annotated[bool, Key("Keep weights, gradients and optimizer in host memory; layers travel to the GPU.")]
    sequence_parallel: Annotated[bool, Key("Split activations along the sequence between tensor parallel ranks.")]
    activation_checkpointing: Annotated[
        bool, Key("Recompute activations in the backward pass to save memory.", also=("gradient_checkpointing",))
    ]
    recompute_granularity: Annotated[
        Literal["full", "selective"], Key("Recompute whole layers, or all but products and attention.", absent="full")
    ]
    attention_kernel: Annotated[
        Literal["auto", "flash_attn", "varlen_attn", "sdpa"],
        Key(
            "Attention on GPUs by flash-attn, torch's varlen_attn, or document by document.",
            absent="auto",
            also=("attn_implementation",),
        ),
    ]
    loss_kernel: Annotated[
        Literal["auto", "chunked", "liger"],
        Key(
            "The loss by torch, or by Liger's kernels on GPUs; auto: those where they can.",
            absent="auto",
            also=("use_liger_kernel",),
        ),
    ]
    compile: Annotated[bool, Key("Run the layers through torch.compile.", absent=False, also=("torch_compile",))]
    tensor_parallel_size: Annotated[int, Key("Ranks that share each layer.", minimum=1)]
    context_parallel_size: Annotated[int, Key("Ranks that share each sequence.", minimum=1)]
    expert_parallel_size: Annotated[int, Key("Ranks that share the experts of a mixture.", minimum=1)]
    dp_replicate_size: Annotated[int, Key("Copies of the sharded model: hybrid sharding.", minimum=1)]
    custom_parallel_plan: Annotated[str | None, Key("Import path of a tensor parallel plan; null: the model's own.")]
    automodel_kwargs: Annotated[Mapping[str, Any], Key("Extra arguments for loading the model.", absent={})]
    clear_cache_every_n_steps: Annotated[
        int | None, Key("Empty the GPU cache every so many steps; null: never.", minimum=1)
    ]
    defer_fsdp_grad_sync: Annotated[bool, Key("Exchange gradients once per step instead of once per microbatch.")]
    lora_cfg: Annotated[
        LoraConfig,
        Key(
            "Low-rank adapters.", also=("lora", "peft", "lora_config", "peft_config", "use_peft", "use_lora", "adapter")
        ),
    ]
    quantization: Annotated[QuantizationConfig, Key("Frozen weights below adapters in 4 bit.")]
