"""Bytes on each GPU while it trains."""

from __future__ import annotations

from dataclasses import dataclass

from skills_pipe.training.config.estimate.activations import (
    FLOAT,
    SCORES_AT_ONCE,
    Conditions,
    Recomputed,
    activation_bytes,
    block_bytes,
)
from skills_pipe.training.config.estimate.adapted import adapter_activations, adapter_parameters, adapter_parameters_met
from skills_pipe.training.config.estimate.packed import PackedBase, packed_base
from skills_pipe.training.config.estimate.shape import ModelShape
from skills_pipe.training.config.estimate.states import state_bytes
from skills_pipe.training.config.schema import PolicyConfig

GIB = 1 << 30

_LOGITS_AT_ONCE = 1 << 24
"""Logits that the loss holds at one time (``models/loss.py``)."""
_RESERVE = 1 * GIB
"""What a CUDA context, NCCL and the allocator's fragments take, roughly."""
_ON_GPU = ("weights", "gradients", "optimizer", "average", "compute", "activations", "loss")
_SHOWN = 0.05
"""GiB from which on a part is worth a word."""


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes on each GPU while it trains.

    Attributes:
        weights: this rank's part: fp32, but for those that are not trained, which have the type that computes or 4 bit.
        gradients: of what is trained, fp32: this rank's part, or all where they are exchanged once per step only.
        optimizer: its states.
        average: moving average of what is trained, where one is kept.
        compute: weights as the forward pass has them: a copy of all in one process, else what is whole at a time.
        activations: what the forward pass keeps for the backward pass.
        loss: logits of a chunk and the gradient of the output layer.
        host: bytes of host memory of this rank, for what lies there in the place of the GPU's.
    """

    weights: int
    gradients: int
    optimizer: int
    compute: int
    activations: int
    loss: int
    average: int = 0
    host: int = 0

    @property
    def total(self) -> int:
        """All of it, with what the GPU needs besides."""
        sizes: list[int] = [getattr(self, name) for name in _ON_GPU]
        return sum(sizes) + _RESERVE

    def __str__(self) -> str:
        parts = {name: getattr(self, name) for name in _ON_GPU} | {"reserve": _RESERVE}
        return ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items() if size >= _SHOWN * GIB)


def estimate_memory(
    shape: ModelShape, policy: PolicyConfig, *, ranks: int, averaged: bool = False
) -> MemoryEstimate | None:
    """Bytes on each of ``ranks`` GPUs for the fsdp backend; None where an optimizer is not known here.

    Args:
        shape: the model.
        policy: section ``policy`` of the configuration.
        ranks: GPUs in all.
        averaged: a moving average of the weights is kept (``sft.ema_decay``).
    """
    states = state_bytes(shape, policy)
    if states is None:
        return None
    dtensor = policy.dtensor_cfg
    width = FLOAT if policy.precision == "float32" else 2
    shards = max(1, ranks // dtensor.dp_replicate_size)
    adapters = adapter_parameters(shape, policy)
    own = shape.of_rank(dtensor.tensor_parallel_size)
    # Experts of other ranks never come here.
    others = _elsewhere(shape.expert_parameters, policy)
    here = _parameters_here(shape, own, shards, dtensor.tensor_parallel_size)
    met = adapter_parameters_met(shape, policy)
    # Of adapters some matrices are whole on each of the ranks that share layers.
    part = (here if met is None else -(-met * dtensor.tensor_parallel_size // shards)) * FLOAT
    packed = packed_base(shape, policy)
    # In 4 bit no layer is shared by ranks but by sharding.
    frozen = 0 if adapters is None else here * width - packed.numbers // shards * width
    frozen += -(-packed.sharded // shards) + packed.everywhere
    trained = own.parameters if adapters is None else adapters
    whole = trained - len(shape.mixtures) * others if met is None else met
    row = policy.sequence_packing.train_mb_tokens if policy.sequence_packing.enabled else _padded_tokens(policy)
    tokens = -(-row // dtensor.context_parallel_size)
    conditions = _conditions(policy, row)
    layers = 1 if _recomputed(policy) == "full" else shape.layers
    # What is kept of a rank's part: on the GPU, or on the host.
    kept = {
        "weights": part + frozen,
        "gradients": part,
        "optimizer": round(part / FLOAT * states),
        "average": part if averaged else 0,
    }
    on_gpu = dict.fromkeys(kept, 0) if dtensor.cpu_offload else kept
    deferred = {"gradients": whole * FLOAT} if _deferred(policy, ranks) else {}
    sharded = ranks > 1 or dtensor.cpu_offload
    return MemoryEstimate(
        **on_gpu | deferred,
        compute=_compute_bytes(own, width, packed, trained=trained, sharded=sharded, others=others),
        activations=activation_bytes(own, tokens, width=width, recompute=_recomputed(policy), conditions=conditions)
        + block_bytes(own, min(row, policy.max_total_sequence_length), width=width)
        + _collected_bytes(own, policy, row, width)
        + adapter_activations(shape, policy, tokens, layers=layers) * width,
        loss=_loss_bytes(own, tokens, width, trained=adapters is None),
        host=sum(kept.values()) if dtensor.cpu_offload else 0,
    )


def _deferred(policy: PolicyConfig, ranks: int) -> bool:
    """Whether gradients are exchanged once per step, after several microbatches, and are whole until then."""
    dtensor = policy.dtensor_cfg
    data_ranks = max(1, ranks // (dtensor.tensor_parallel_size * dtensor.context_parallel_size))
    microbatches = policy.train_global_batch_size / (data_ranks * policy.train_micro_batch_size)
    return ranks > 1 and dtensor.defer_fsdp_grad_sync and microbatches > 1


def _elsewhere(experts: int, policy: PolicyConfig) -> int:
    """Weights of a layer's experts that only other ranks compute with."""
    return experts - experts // (policy.dtensor_cfg.expert_parallel_size * policy.dtensor_cfg.tensor_parallel_size)


def _parameters_here(shape: ModelShape, own: ModelShape, shards: int, tensor: int) -> int:
    """Weights in the shards of one rank: norms and the like are sharded over fewer ranks, experts over all."""
    experts = len(shape.mixtures) * shape.expert_parameters
    return -(-((own.parameters - experts) * tensor + experts) // shards)


def _conditions(policy: PolicyConfig, row: int) -> Conditions:
    """Of a row whose documents are of the length that keeps most: scores are kept of those of one block."""
    dtensor = policy.dtensor_cfg
    longest = min(policy.max_total_sequence_length, row)
    if dtensor.context_parallel_size > 1:
        # Each rank has two pieces of a row, and may have of a document no more.
        looking = min(longest, -(-row // (2 * dtensor.context_parallel_size)))
    else:
        looking = None
        longest = min(longest, SCORES_AT_ONCE) if policy.sequence_packing.enabled else longest
    return Conditions(
        document=longest,
        looking=looking,
        shared_experts=dtensor.expert_parallel_size > 1,
        tensor=dtensor.tensor_parallel_size,
        sequence=dtensor.sequence_parallel,
        masks=dtensor.attention_kernel == "sdpa",
    )


def _collected_bytes(shape: ModelShape, policy: PolicyConfig, row: int, width: int) -> int:
    """Keys and values of a whole row, which ranks that share it keep for the attention of each layer."""
    if policy.dtensor_cfg.context_parallel_size == 1:
        return 0
    layers = 1 if policy.dtensor_cfg.activation_checkpointing else shape.layers
    return layers * 2 * row * shape.kv_heads * shape.head_dim * width


def _recomputed(policy: PolicyConfig) -> Recomputed:
    fsdp = policy.dtensor_cfg
    return fsdp.recompute_granularity if fsdp.activation_checkpointing else "nothing"


def _padded_tokens(policy: PolicyConfig) -> int:
    return policy.train_micro_batch_size * policy.max_total_sequence_length


def _compute_bytes(
    shape: ModelShape, width: int, packed: PackedBase, *, trained: int, sharded: bool, others: int
) -> int:
    """Sharded, what is outside of the layers stays whole from forward to backward, and two layers are there at once.

    Of weights in 4 bit one matrix is unpacked at a time.
    """
    unpacked = packed.largest * width
    if not sharded:
        return (0 if width == FLOAT else trained * width) + unpacked
    plain = shape.layer_parameters - others - packed.numbers // shape.layers
    return (shape.outer_parameters + 2 * plain) * width + 2 * packed.sharded // shape.layers + unpacked


def _loss_bytes(shape: ModelShape, tokens: int, width: int, *, trained: bool) -> int:
    """Logits in the forward precision and in fp32, and the output layer's gradient, summed up in fp32."""
    logits = min(_LOGITS_AT_ONCE, tokens * shape.vocabulary)
    gradient = shape.vocabulary * shape.hidden * (FLOAT + 2 * width) if trained else 0
    return logits * (width + FLOAT) + gradient
