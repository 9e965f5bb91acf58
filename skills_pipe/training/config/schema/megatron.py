"""Section ``policy.megatron_cfg``: the megatron backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from skills_pipe.training.config.schema.declare import Key


@dataclass(frozen=True, kw_only=True)
class MegatronCheckpointConfig:
    """How Megatron writes checkpoints."""

    async_save: Annotated[bool, Key("Write while training goes on.")]
    ckpt_assume_constant_structure: Annotated[bool, Key("Plan the save once and reuse the plan.")]


@dataclass(frozen=True, kw_only=True)
class MegatronPeftConfig:
    """Low-rank adapters on the megatron backend."""

    enabled: Annotated[bool, Key("Train adapters; the base model stays as it is.")]
    target_modules: Annotated[
        tuple[str, ...], Key("linear_qkv, linear_proj, linear_fc1, linear_fc2 or patterns; empty: all.")
    ]
    exclude_modules: Annotated[tuple[str, ...], Key("Names of modules that get none; needs target_modules empty.")]
    dim: Annotated[int, Key("Rank of the adapters.", minimum=1, also=("rank", "r", "lora_rank", "lora_r"))]
    alpha: Annotated[float, Key("Scale of the adapters is alpha / dim.", above=0, also=("lora_alpha",))]
    dropout: Annotated[float, Key("Dropout probability in the adapters.", minimum=0, also=("lora_dropout",))]
    dropout_position: Annotated[Literal["pre", "post"], Key("Dropout before or after the adapter.")]
    lora_A_init_method: Annotated[Literal["xavier", "uniform"], Key("Initial values of matrix A.", absent="xavier")]
    lora_B_init_method: Annotated[Literal["zero"], Key("Initial values of matrix B.", absent="zero")]
    lora_A_init: Annotated[Literal["xavier", "uniform"] | None, Key("Other name of lora_A_init_method.", absent=None)]
    lora_B_init: Annotated[Literal["zero"] | None, Key("Other name of lora_B_init_method.", absent=None)]
    a2a_experimental: Annotated[bool, Key("All-to-all communication in the adapters; no effect on the result.")]
    lora_dtype: Annotated[str | None, Key("Data type of the adapters; null: that of the base weights.")]


@dataclass(frozen=True, kw_only=True)
class MegatronOptimizerConfig:
    """Megatron's optimizer."""

    optimizer: Annotated[Literal["adam", "sgd"], Key("Optimizer; adam with weight decay is AdamW.")]
    lr: Annotated[float, Key("Highest learning rate.", minimum=0)]
    min_lr: Annotated[float, Key("Lowest learning rate.", minimum=0)]
    weight_decay: Annotated[float, Key("Weight decay.", minimum=0)]
    bf16: Annotated[bool, Key("Compute in bfloat16.")]
    fp16: Annotated[bool, Key("Compute in float16.")]
    params_dtype: Annotated[str, Key("Data type of the master weights.")]
    adam_beta1: Annotated[float, Key("First decay rate of Adam.", minimum=0)]
    adam_beta2: Annotated[float, Key("Second decay rate of Adam.", minimum=0)]
    adam_eps: Annotated[float, Key("Epsilon of Adam.", above=0)]
    sgd_momentum: Annotated[float, Key("Momentum of SGD.", minimum=0)]
    use_distributed_optimizer: Annotated[bool, Key("Spread the optimizer's state over data parallel ranks.")]
    use_precision_aware_optimizer: Annotated[
        bool, Key("Keep the optimizer's state in the precision that each part needs.")
    ]
    clip_grad: Annotated[
        float | None, Key("Global gradient norm is clipped to this; null or 0: no clipping.", minimum=0)
    ]
    optimizer_cpu_offload: Annotated[bool, Key("Keep the optimizer in CPU memory.")]
    optimizer_offload_fraction: Annotated[float, Key("Part of the optimizer kept in CPU memory.", minimum=0)]
    overlap_cpu_optimizer_d2h_h2d: Annotated[bool, Key("Overlap the copies of an offloaded optimizer.", absent=False)]


@dataclass(frozen=True, kw_only=True)
class MegatronSchedulerConfig:
    """Megatron's schedule of learning rate and weight decay."""

    start_weight_decay: Annotated[float, Key("Weight decay at the start.", minimum=0)]
    end_weight_decay: Annotated[float, Key("Weight decay at the end.", minimum=0)]
    weight_decay_incr_style: Annotated[Literal["constant", "linear", "cosine"], Key("How weight decay changes.")]
    lr_decay_style: Annotated[
        Literal["constant", "linear", "cosine", "inverse-square-root", "WSD"], Key("How the rate decays.")
    ]
    lr_decay_iters: Annotated[int | None, Key("Steps of the decay; null: all steps of the run.", minimum=1)]
    lr_warmup_iters: Annotated[int, Key("Steps of the warmup.", minimum=0)]
    lr_warmup_init: Annotated[float, Key("Learning rate at the start of the warmup.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class MegatronDdpConfig:
    """Megatron's data parallelism."""

    grad_reduce_in_fp32: Annotated[bool, Key("Sum gradients in float32.")]
    overlap_grad_reduce: Annotated[bool, Key("Sum gradients while the backward pass runs.")]
    overlap_param_gather: Annotated[bool, Key("Gather parameters while the forward pass runs.")]
    data_parallel_sharding_strategy: Annotated[str, Key("What is sharded over data parallel ranks.")]
    use_custom_fsdp: Annotated[bool, Key("Use Megatron's own FSDP.")]


@dataclass(frozen=True, kw_only=True)
class MegatronFp8Config:
    """FP8 training."""

    enabled: Annotated[bool, Key("Compute in FP8.")]
    fp8: Annotated[str, Key("FP8 format.")]
    fp8_recipe: Annotated[str, Key("How FP8 scales are found.")]
    fp8_param: Annotated[bool, Key("Keep parameters in FP8.")]


@dataclass(frozen=True, kw_only=True)
class MegatronConfig:
    """The megatron backend: megatron-core."""

    enabled: Annotated[bool, Key("Train with this backend.")]
    checkpoint: Annotated[MegatronCheckpointConfig, Key("How Megatron writes checkpoints.")]
    use_fused_linear_logprobs: Annotated[bool, Key("Fuse the output layer with the log probabilities.")]
    fused_linear_logprobs_chunk_size: Annotated[int, Key("Tokens per chunk of that fusion.", minimum=1)]
    use_linear_ce_fusion_loss: Annotated[bool, Key("Fuse the output layer with the loss.")]
    linear_ce_fusion_chunk_size: Annotated[int, Key("Tokens per chunk of that fusion.", minimum=1)]
    force_reconvert_from_hf: Annotated[bool, Key("Convert the Hugging Face weights again although a cache exists.")]
    env_vars: Annotated[Mapping[str, str], Key("Environment variables of the ranks.", absent={})]
    empty_unused_memory_level: Annotated[int, Key("How eagerly the GPU cache is emptied.", minimum=0)]
    activation_checkpointing: Annotated[bool, Key("Recompute activations in the backward pass to save memory.")]
    cuda_graph_impl: Annotated[str, Key("CUDA graph capture: none, local or transformer_engine.")]
    cuda_graph_modules: Annotated[tuple[str, ...], Key("Modules that are captured.", absent=())]
    cuda_graph_warmup_steps: Annotated[int, Key("Steps before the capture.", minimum=0)]
    fine_grained_activation_offloading: Annotated[bool, Key("Move chosen activations to CPU memory.")]
    offload_modules: Annotated[tuple[str, ...] | None, Key("Modules whose activations are moved.")]
    recompute_granularity: Annotated[Literal["full", "selective"], Key("Recompute whole layers or chosen modules.")]
    recompute_modules: Annotated[tuple[str, ...] | None, Key("Modules to recompute; null: the attention core.")]
    tensor_model_parallel_size: Annotated[int, Key("Ranks that share each layer.", minimum=1)]
    expert_tensor_parallel_size: Annotated[int, Key("Ranks that share each expert.", minimum=1)]
    expert_model_parallel_size: Annotated[int, Key("Ranks that share the experts of a mixture.", minimum=1)]
    pipeline_model_parallel_size: Annotated[int, Key("Ranks that share the stack of layers.", minimum=1)]
    context_parallel_size: Annotated[int, Key("Ranks that share each sequence.", minimum=1)]
    pipeline_dtype: Annotated[str, Key("Data type of what passes between pipeline stages.")]
    num_layers_in_first_pipeline_stage: Annotated[
        int | None, Key("Layers of the first stage; null: an equal part.", minimum=1)
    ]
    num_layers_in_last_pipeline_stage: Annotated[
        int | None, Key("Layers of the last stage; null: an equal part.", minimum=1)
    ]
    sequence_parallel: Annotated[bool, Key("Split activations along the sequence between tensor parallel ranks.")]
    freeze_moe_router: Annotated[bool, Key("Do not train the router of a mixture.")]
    moe_router_dtype: Annotated[str | None, Key("Data type of the router; null: that of the model.")]
    moe_router_load_balancing_type: Annotated[str, Key("How the load of experts is balanced.")]
    moe_router_bias_update_rate: Annotated[float, Key("Update rate of the router's bias.", minimum=0)]
    moe_permute_fusion: Annotated[bool, Key("Fuse the permutation of tokens.")]
    moe_enable_deepep: Annotated[bool, Key("Use DeepEP for the exchange of tokens.")]
    moe_token_dispatcher_type: Annotated[str, Key("How tokens reach their experts.")]
    moe_shared_expert_overlap: Annotated[bool, Key("Overlap the shared expert with the exchange.")]
    moe_per_layer_logging: Annotated[bool, Key("Log the balance of each layer.")]
    apply_rope_fusion: Annotated[bool, Key("Fuse rotary embeddings.")]
    bias_activation_fusion: Annotated[bool, Key("Fuse bias and activation.")]
    gradient_accumulation_fusion: Annotated[bool, Key("Fuse gradient accumulation into the weight gradient.")]
    use_fused_weighted_squared_relu: Annotated[bool, Key("Fuse the weighted squared ReLU.")]
    use_gloo_process_groups: Annotated[bool, Key("Create gloo groups beside the NCCL ones.")]
    layernorm_epsilon: Annotated[float | None, Key("Epsilon of the norms; null: the model's own.", minimum=0)]
    defer_fp32_logits: Annotated[bool, Key("Turn logits into float32 late.")]
    peft: Annotated[MegatronPeftConfig, Key("Low-rank adapters.")]
    optimizer: Annotated[MegatronOptimizerConfig, Key("The optimizer.")]
    scheduler: Annotated[MegatronSchedulerConfig, Key("Schedule of learning rate and weight decay.")]
    distributed_data_parallel_config: Annotated[MegatronDdpConfig, Key("Data parallelism.")]
    fp8_cfg: Annotated[MegatronFp8Config, Key("FP8 training.")]
