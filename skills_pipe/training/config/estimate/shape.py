"""The sizes of a model, as its ``config.json`` says them, and the weights that they come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from skills_pipe.training.config.estimate.kinds import KINDS, Kind
from skills_pipe.training.config.estimate.layers import Experts, experts, mixtures, spelled_alike, windows

_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")

_PLAIN_ACTIVATIONS = {"gelu_new": 4, "gelu_fast": 6, "gelu_pytorch_tanh": 1, "gelu": 1, "relu": 0, "silu": 1}
"""Numbers kept for each neuron for the activation's own gradient; one that is not named: as the most."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What a ``config.json`` says about the size of a decoder.

    Attributes:
        kind: what is the same in all models of the family.
        hidden: width of the residual stream.
        inner: width of the MLP.
        layers: all of them.
        heads, kv_heads, head_dim: of attention.
        tied: the output layer has the weights of the embedding.
        experts: in the place of the MLP, in the layers ``mixtures``.
        qkv_bias, out_bias, mlp_bias: whether these products have one.
        positions: that have a vector which is learned.
        windows: for each layer how many tokens back it sees; None: all.
        capped: scores of attention are.
        plain_kept: of an MLP without a gate, numbers that its activation keeps for each neuron.
        dropout: of what attention and MLP add, so that masks are kept.
    """

    kind: Kind = KINDS["llama"]
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    experts: Experts | None = None
    mixtures: tuple[int, ...] = ()
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    positions: int = 0
    windows: tuple[int | None, ...] = ()
    capped: bool = False
    plain_kept: int = 1
    dropout: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ModelShape | None:
        """The shape, None for a family that is not known here or a config that lacks something."""
        kind = KINDS.get(config.get("model_type") or "")
        if kind is None:
            return None
        config = spelled_alike(config, kind)
        sizes = [config.get(name) for name in (*_SIZES, *(("max_position_embeddings",) if kind.positions else ()))]
        if not all(isinstance(size, int) for size in sizes) or config.get("add_cross_attention"):
            return None
        mixed = mixtures(config, kind)
        if mixed and experts(config, kind) is None:
            return None
        heads = config["num_attention_heads"]
        bias = bool(config.get("attention_bias", kind.attention_bias))
        return cls(
            kind=kind,
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads", kind.kv_heads) or heads,
            head_dim=config.get("head_dim", kind.head_dim) or config["hidden_size"] // heads,
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", kind.tied)),
            experts=experts(config, kind) if mixed else None,
            mixtures=mixed,
            qkv_bias=bias if kind.qkv_bias is None else kind.qkv_bias,
            out_bias=bias and (kind.qkv_bias is None or not kind.linear),
            mlp_bias=bool(config.get("mlp_bias", not kind.linear)),
            positions=config["max_position_embeddings"] if kind.positions else 0,
            windows=windows(config, kind),
            capped=bool(config.get("attn_logit_softcapping", kind.softcap)) and kind.softcap is not None,
            plain_kept=_PLAIN_ACTIVATIONS.get(
                config.get("activation_function", "gelu_new"), max(_PLAIN_ACTIVATIONS.values())
            ),
            dropout=bool(config.get("resid_pdrop", 0.1 if kind.positions else 0.0)),
        )

    def of_rank(self, ranks: int) -> ModelShape:
        """What one of so many ranks that share each layer has of it; experts are left as they are."""
        return replace(
            self,
            heads=self.heads // ranks,
            kv_heads=self.kv_heads // ranks,
            inner=self.inner // ranks,
            vocabulary=self.vocabulary // ranks,
        )

    @property
    def queries(self) -> int:
        """Width of the queries of all heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of the keys of all heads, which is that of the values."""
        return self.kv_heads * self.head_dim

    @property
    def fused_attention(self) -> bool:
        """Whether kernels compute its attention, so that no scores are kept."""
        return not (self.capped or self.kind.sinks)

    @property
    def layer_parameters(self) -> int:
        """Weights of the largest layer."""
        mlp = self._mlp_parameters if len(self.mixtures) < self.layers else 0
        return self._attention_parameters + max(mlp, self._mixture_parameters)

    @property
    def expert_parameters(self) -> int:
        """Weights of the experts of one layer, without what chooses among them."""
        if self.experts is None:
            return 0
        biases = (2 * self.experts.inner + self.hidden) * self.kind.expert_bias
        return self.experts.count * (3 * self.hidden * self.experts.inner + biases)

    @property
    def outer_parameters(self) -> int:
        """Weights outside of the layers: embeddings, output layer, last norm."""
        norm = self.hidden * (2 if self.kind.norm == "layer" else 1)
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + self.positions * self.hidden + norm

    @property
    def parameters(self) -> int:
        """All weights."""
        mlps = (self.layers - len(self.mixtures)) * self._mlp_parameters + len(self.mixtures) * self._mixture_parameters
        return self.layers * self._attention_parameters + mlps + self.outer_parameters

    @property
    def matrices(self) -> int:
        """Weights inside of the layers that one token is multiplied with, of a mixture those of its experts."""
        attention = 2 * self.hidden * (self.queries + self.keys)
        plain = (3 if self.kind.gated else 2) * self.hidden * self.inner
        found = self.layers * attention + (self.layers - len(self.mixtures)) * plain
        if self.experts is not None:
            met = self.expert_parameters // self.experts.count * self.experts.chosen
            found += len(self.mixtures) * (self.experts.count * self.hidden + met)
        return found

    @property
    def linear_layers(self) -> Mapping[str, tuple[int, int]]:
        """Inputs and outputs of every linear layer in the layers, by its full name in Hugging Face's models."""
        if not self.kind.linear:
            return {}
        if self.kind.fused:
            attention, branches = {"qkv_proj": self.queries + 2 * self.keys}, {"gate_up_proj": 2 * self.inner}
        else:
            attention = {"q_proj": self.queries, "k_proj": self.keys, "v_proj": self.keys}
            branches = {"gate_proj": self.inner, "up_proj": self.inner}
        of_one = {f"self_attn.{name}": (self.hidden, size) for name, size in attention.items()}
        of_one["self_attn.o_proj"] = (self.queries, self.hidden)
        of_mlp = {f"mlp.{name}": (self.hidden, size) for name, size in branches.items()}
        of_mlp["mlp.down_proj"] = (self.inner, self.hidden)
        # Experts are no linear layers but one stack of weights.
        return {
            f"model.layers.{layer}.{name}": size
            for layer in range(self.layers)
            for name, size in (of_one if layer in self.mixtures else of_one | of_mlp).items()
        }

    @property
    def _attention_parameters(self) -> int:
        """Of a layer, with its norms."""
        biases = (self.queries + 2 * self.keys) * self.qkv_bias + self.hidden * self.out_bias
        norms = self.kind.norms * self.hidden * (2 if self.kind.norm == "layer" else 1)
        small = 2 * self.head_dim * self.kind.qk_norm + self.heads * self.kind.sinks
        return 2 * self.hidden * (self.queries + self.keys) + biases + norms + small

    @property
    def _mlp_parameters(self) -> int:
        branches = 2 if self.kind.gated else 1
        return (branches + 1) * self.hidden * self.inner + (branches * self.inner + self.hidden) * self.mlp_bias

    @property
    def _mixture_parameters(self) -> int:
        if self.experts is None:
            return 0
        return self.experts.count * (self.hidden + self.kind.expert_bias) + self.expert_parameters
