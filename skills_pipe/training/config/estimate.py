"""How much memory and time training takes: arithmetic on a model's ``config.json``, without torch.

It follows the fsdp backend (:mod:`skills_pipe.training.backends.fsdp`): fp32 weights, gradients and optimizer state,
all sharded, a forward and backward pass in ``policy.precision``, the loss chunk by chunk. Bytes of weights, gradients
and optimizer are exact; activations are what autograd keeps, without what kernels need for a moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from skills_pipe.training.config.adapters import adapter_spec
from skills_pipe.training.config.schema import PolicyConfig

GIB = 1 << 30

Recomputed = Literal["nothing", "full", "selective"]

_FLOAT = 4
"""Bytes of an fp32 value."""
_LOGITS_AT_ONCE = 1 << 24
"""Logits that the loss holds at one time (``models/loss.py``)."""
_STATES = {"AdamW": 2, "Adam": 2, "Adamax": 2, "NAdam": 2, "RAdam": 2, "Adagrad": 1, "RMSprop": 1, "Lion": 1}
"""fp32 values that an optimizer keeps for each weight."""
_RESERVE = 1 * GIB
"""What a CUDA context, NCCL and the allocator's fragments take, roughly."""
_SHOWN = 0.05
"""GiB from which on a part is worth a word."""

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""``model_type`` of the models that can be counted."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What a ``config.json`` says about the size of a decoder of the Llama kind.

    Attributes:
        hidden: width of the residual stream.
        inner: width of the gated MLP.
        heads, kv_heads, head_dim: of attention.
        tied: the output layer has the weights of the embedding.
        qkv_bias, out_bias, mlp_bias: whether these linear layers have one.
        qk_norm: whether queries and keys are normalised (Qwen 3).
    """

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ModelShape | None:
        """The shape, None for a family that is not known here or a config that lacks something."""
        family = config.get("model_type")
        sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        if family not in FAMILIES or not all(isinstance(config.get(name), int) for name in sizes):
            return None
        heads = config["num_attention_heads"]
        bias = bool(config.get("attention_bias", False))
        return cls(
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or (128 if family == "qwen3" else config["hidden_size"] // heads),
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
            qkv_bias=family == "qwen2" or bias,
            out_bias=family != "qwen2" and bias,
            mlp_bias=bool(config.get("mlp_bias", False)),
            qk_norm=family == "qwen3",
        )

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.hidden * (queries + 2 * keys) + queries * self.hidden
        biases = (queries + 2 * keys) * self.qkv_bias + self.hidden * self.out_bias
        mlp = 3 * self.hidden * self.inner + (2 * self.inner + self.hidden) * self.mlp_bias
        return attention + biases + mlp + 2 * self.hidden + 2 * self.head_dim * self.qk_norm

    @property
    def outer_parameters(self) -> int:
        """Weights outside of the layers: embedding, output layer, last norm."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + self.hidden

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.layers * self.layer_parameters + self.outer_parameters

    @property
    def linear_layers(self) -> Mapping[str, tuple[int, int]]:
        """Inputs and outputs of every linear layer in the layers, by its full name in Hugging Face's models."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        of_one = {
            "self_attn.q_proj": (self.hidden, queries),
            "self_attn.k_proj": (self.hidden, keys),
            "self_attn.v_proj": (self.hidden, keys),
            "self_attn.o_proj": (queries, self.hidden),
            "mlp.gate_proj": (self.hidden, self.inner),
            "mlp.up_proj": (self.hidden, self.inner),
            "mlp.down_proj": (self.inner, self.hidden),
        }
        return {f"model.layers.{layer}.{name}": of_one[name] for layer in range(self.layers) for name in of_one}

    def flops_per_token(self, context: int, *, adapters: int | None = None) -> float:
        """Floating point operations of a forward and backward pass for one token.

        ``6 N`` for the matrices (Kaplan et al. 2020, section 2.1; the embedding is looked up and costs nothing), and
        ``6 * layers * heads * head_dim * context`` for causal attention, where a token sees half of ``context``.
        Matrices that are not trained, under ``adapters`` weights that are, have no gradient of their own: ``4 N``.
        """
        matrices = self.parameters - (0 if self.tied else self.vocabulary * self.hidden)
        products = 6 * matrices if adapters is None else 4 * matrices + 6 * adapters
        return products + 6 * self.layers * self.heads * self.head_dim * context


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes on each GPU while it trains.

    Attributes:
        weights: this rank's part: fp32, but for those that are not trained, which have the type that computes.
        gradients: of what is trained, fp32: this rank's part, or all where they are exchanged once per step only.
        optimizer: its states.
        compute: weights as the forward pass has them: a copy of all in one process, else what is whole at a time.
        activations: what the forward pass keeps for the backward pass.
        loss: logits of a chunk and the gradient of the output layer.
    """

    weights: int
    gradients: int
    optimizer: int
    compute: int
    activations: int
    loss: int

    @property
    def total(self) -> int:
        """All of it, with what the GPU needs besides."""
        return self.weights + self.gradients + self.optimizer + self.compute + self.activations + self.loss + _RESERVE

    def __str__(self) -> str:
        names = ("weights", "gradients", "optimizer", "compute", "activations", "loss")
        parts = {name: getattr(self, name) for name in names} | {"reserve": _RESERVE}
        return ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items() if size >= _SHOWN * GIB)


def estimate_memory(shape: ModelShape, policy: PolicyConfig, *, ranks: int) -> MemoryEstimate | None:
    """Bytes on each of ``ranks`` GPUs for the fsdp backend; None where an optimizer is not known here.

    Args:
        shape: the model.
        policy: section ``policy`` of the configuration.
        ranks: GPUs in all.
    """
    states = _STATES.get(policy.optimizer.name.rpartition(".")[2]) if policy.optimizer else None
    if policy.optimizer and policy.optimizer.name.endswith("SGD"):
        states = 1 if policy.optimizer.kwargs.get("momentum") else 0
    if states is None:
        return None
    dtensor = policy.dtensor_cfg
    width = _FLOAT if policy.precision == "float32" else 2
    shards = max(1, ranks // dtensor.dp_replicate_size)
    adapters = adapter_parameters(shape, policy)
    trained = shape.parameters if adapters is None else adapters
    part = -(-trained // shards) * _FLOAT
    frozen = 0 if adapters is None else -(-shape.parameters // shards) * width
    data_ranks = max(1, ranks // (dtensor.tensor_parallel_size * dtensor.context_parallel_size))
    microbatches = policy.train_global_batch_size / (data_ranks * policy.train_micro_batch_size)
    deferred = ranks > 1 and dtensor.defer_fsdp_grad_sync and microbatches > 1
    row = policy.sequence_packing.train_mb_tokens if policy.sequence_packing.enabled else _padded_tokens(policy)
    tokens = -(-row // dtensor.context_parallel_size)
    return MemoryEstimate(
        weights=part + frozen,
        gradients=trained * _FLOAT if deferred else part,
        optimizer=part * states,
        compute=_compute_bytes(shape, width, trained=trained, ranks=ranks),
        activations=activation_bytes(shape, tokens, width=width, recompute=_recomputed(policy))
        + _collected_bytes(shape, policy, row, width)
        + _adapter_activations(shape, policy, tokens) * width,
        loss=_loss_bytes(shape, tokens, width, trained=adapters is None),
    )


def adapter_parameters(shape: ModelShape, policy: PolicyConfig) -> int | None:
    """Numbers in the adapters that are trained; None where all weights are."""
    spec = adapter_spec(policy)
    if spec is None:
        return None
    return sum(
        spec.dim * (inputs + outputs) + outputs * spec.decomposed
        for name, (inputs, outputs) in shape.linear_layers.items()
        if spec.wants(name)
    )


def activation_bytes(shape: ModelShape, tokens: int, *, width: int, recompute: Recomputed = "nothing") -> int:
    """Bytes that autograd keeps for the layers, for one packed row of ``tokens`` tokens.

    Counted tensor by tensor after the layers of transformers, as Korthikanti et al. 2022 (section 4.1) do for GPT:
    a norm keeps its input in fp32 twice over (for the square and for the product), the normalised input and its
    output; attention keeps queries, keys, values (before and after the rotation where they are copied) and its output;
    the MLP keeps both branches, the activated one and their product.

    Args:
        shape: the model.
        tokens: of one microbatch on this rank.
        width: bytes of a value in the forward pass.
        recompute: what is computed again: of ``full`` layers their inputs are kept, and the activations of one; with
            ``selective`` the results of products and of attention besides.
    """
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    # Norms compute in fp32: below that they keep a copy of their input.
    copy = _FLOAT if width < _FLOAT else 0
    norm = shape.hidden * (copy + 3 * width)
    attention = width * (3 * queries + 3 * keys + queries)
    mlp = width * 4 * shape.inner
    layer = 2 * norm + attention + mlp
    if shape.qk_norm:
        layer += (queries + keys) * (copy + 2 * width)
    whole = tokens * (norm + shape.hidden * width)
    if recompute == "nothing":
        return tokens * shape.layers * layer + whole
    kept = shape.hidden
    if recompute == "selective":
        kept += 2 * (queries + keys) + 2 * shape.inner + 2 * shape.hidden
    return tokens * (shape.layers * kept * width + layer) + whole


def seconds_per_step(shape: ModelShape, policy: PolicyConfig, *, flops: float) -> float:
    """Seconds of one optimizer step whose samples all have the greatest length, at ``flops`` operations per second."""
    tokens = policy.train_global_batch_size * policy.max_total_sequence_length
    adapters = adapter_parameters(shape, policy)
    return tokens * shape.flops_per_token(policy.max_total_sequence_length, adapters=adapters) / flops


def _adapter_activations(shape: ModelShape, policy: PolicyConfig, tokens: int) -> int:
    """Numbers that adapters keep besides: what is between A and B."""
    spec = adapter_spec(policy)
    if spec is None:
        return 0
    layers = 1 if _recomputed(policy) == "full" else shape.layers
    return tokens * spec.dim * sum(spec.wants(name) for name in shape.linear_layers) * layers // shape.layers


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


def _compute_bytes(shape: ModelShape, width: int, *, trained: int, ranks: int) -> int:
    """Sharded, what is outside of the layers stays whole from forward to backward, and two layers are there at once."""
    if ranks == 1:
        return 0 if width == _FLOAT else trained * width
    return (shape.outer_parameters + 2 * shape.layer_parameters) * width


def _loss_bytes(shape: ModelShape, tokens: int, width: int, *, trained: bool) -> int:
    """Logits in the forward precision and in fp32, and the output layer's gradient, summed up in fp32."""
    logits = min(_LOGITS_AT_ONCE, tokens * shape.vocabulary)
    gradient = shape.vocabulary * shape.hidden * (_FLOAT + 2 * width) if trained else 0
    return logits * (width + _FLOAT) + gradient
