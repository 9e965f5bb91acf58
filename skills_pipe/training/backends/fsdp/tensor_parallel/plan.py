"""Which part of a model becomes which tensor parallel layer: one table per family of models."""

from __future__ import annotations

import re
from collections.abc import Mapping

from transformers import PreTrainedModel

from skills_pipe.training.backends.fsdp.tensor_parallel.adapted import spread_adapted
from skills_pipe.training.backends.fsdp.tensor_parallel.collectives import TensorGroup
from skills_pipe.training.backends.fsdp.tensor_parallel.fused import (
    FusedAttention,
    FusedLinear,
    GateUpLinear,
    QueryKeyValueLinear,
)
from skills_pipe.training.backends.fsdp.tensor_parallel.layers import (
    AddedNorm,
    ColumnLinear,
    EnteringNorm,
    HeadNorm,
    Layer,
    Parameters,
    Router,
    RowLinear,
    SinkAttention,
    VocabularyEmbedding,
    spread,
)
from skills_pipe.training.models.lora import LoraLinear, base_name

Plan = Mapping[str, Layer | None]
"""Name of a module, ``*`` for the number of a layer -> what it becomes; None: ``share_experts`` knows."""

_LLAMA: Plan = {
    "model.embed_tokens": VocabularyEmbedding,
    "model.layers.*.input_layernorm": EnteringNorm,
    "model.layers.*.self_attn.q_proj": ColumnLinear,
    "model.layers.*.self_attn.k_proj": ColumnLinear,
    "model.layers.*.self_attn.v_proj": ColumnLinear,
    "model.layers.*.self_attn.o_proj": RowLinear,
    "model.layers.*.post_attention_layernorm": EnteringNorm,
    "model.layers.*.mlp.gate_proj": ColumnLinear,
    "model.layers.*.mlp.up_proj": ColumnLinear,
    "model.layers.*.mlp.down_proj": RowLinear,
    "model.norm": EnteringNorm,
    "lm_head": ColumnLinear,
}

_NORMED_HEADS: Plan = {
    "model.layers.*.self_attn.q_norm": HeadNorm,
    "model.layers.*.self_attn.k_norm": HeadNorm,
}

_GEMMA2: Plan = {
    **_LLAMA,
    "model.layers.*.post_attention_layernorm": AddedNorm,
    "model.layers.*.pre_feedforward_layernorm": EnteringNorm,
    "model.layers.*.post_feedforward_layernorm": AddedNorm,
}

_PHI3: Plan = {
    "model.embed_tokens": VocabularyEmbedding,
    "model.layers.*.input_layernorm": EnteringNorm,
    "model.layers.*.self_attn": FusedAttention,
    "model.layers.*.self_attn.qkv_proj": QueryKeyValueLinear,
    "model.layers.*.self_attn.o_proj": RowLinear,
    "model.layers.*.post_attention_layernorm": EnteringNorm,
    "model.layers.*.mlp.gate_up_proj": GateUpLinear,
    "model.layers.*.mlp.down_proj": RowLinear,
    "model.norm": EnteringNorm,
    "lm_head": ColumnLinear,
}

_GPT_OSS: Plan = {
    **{name: layer for name, layer in _LLAMA.items() if ".mlp." not in name},
    "model.layers.*.self_attn": SinkAttention,
    "model.layers.*.mlp.router": Router,
    "model.layers.*.mlp.experts": None,
}

PLANS: Mapping[str, Plan] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, **_NORMED_HEADS},
    "qwen3_moe": {
        **_LLAMA,
        **_NORMED_HEADS,
        "model.layers.*.mlp.gate": Router,
        "model.layers.*.mlp.experts": None,
    },
    "gemma": _LLAMA,
    "gemma2": _GEMMA2,
    "gemma3_text": {**_GEMMA2, **_NORMED_HEADS},
    "phi3": _PHI3,
    "gpt_oss": _GPT_OSS,
}
"""By ``model_type``; the same families as :data:`skills_pipe.training.config.parallel.TENSOR_PARALLEL_FAMILIES`."""


def share_layers(model: PreTrainedModel, group: TensorGroup) -> None:
    """Make every layer of ``model`` one that the ranks of ``group`` share; before it is sharded by FSDP2.

    Every rank passes the same weights, which may be on the meta device. The model is of a family that has a plan, and
    the ranks divide its heads, neurons and words: :func:`skills_pipe.training.config.rules.parallel.unshareable`. The
    experts of a mixture are left for ``share_experts``.

    Raises:
        ValueError: the model has parameters that the plan of its family does not know, or adapters on layers that
            cannot have one.
    """
    plan = PLANS[model.config.model_type]
    known: Parameters = {}
    for name, module in list(model.named_modules()):
        pattern = re.sub(r"\.\d+\.", ".*.", name)
        if pattern in plan:
            layer = plan[pattern]
            if layer is not None and isinstance(module, LoraLinear):
                spread_adapted(module, layer, group, known)
            elif layer is not None:
                spread(module, layer, group, known)
            if isinstance(module, FusedLinear | FusedAttention):
                module.arrange(model.config)
        elif base_name(name) is not None and any(True for _ in module.parameters(recurse=False)):
            raise ValueError(f"no tensor parallel plan for {name} ({type(module).__name__})")
