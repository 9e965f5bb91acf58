"""Which part of a model becomes which tensor parallel layer: one table per family of models."""

from __future__ import annotations

import re
from collections.abc import Mapping

from transformers import PreTrainedModel

from skills_pipe.training.backends.fsdp.tensor_parallel.collectives import TensorGroup
from skills_pipe.training.backends.fsdp.tensor_parallel.fused import FusedAttention, GateUpLinear, QueryKeyValueLinear
from skills_pipe.training.backends.fsdp.tensor_parallel.layers import (
    AddedNorm,
    ColumnLinear,
    EnteringNorm,
    HeadNorm,
    Layer,
    Parameters,
    RowLinear,
    VocabularyEmbedding,
    spread,
)

Plan = Mapping[str, Layer]
"""Name of a module, ``*`` for the number of a layer -> what it becomes."""

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

PLANS: Mapping[str, Plan] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, **_NORMED_HEADS},
    "gemma": _LLAMA,
    "gemma2": _GEMMA2,
    "gemma3_text": {**_GEMMA2, **_NORMED_HEADS},
    "phi3": _PHI3,
}
"""By ``model_type``; the same families as :data:`skills_pipe.training.config.parallel.TENSOR_PARALLEL_FAMILIES`."""


def share_layers(model: PreTrainedModel, group: TensorGroup) -> None:
    """Make every layer of ``model`` one that the ranks of ``group`` share; before it is sharded by FSDP2.

    Every rank passes the same weights, which may be on the meta device. The model is of a family that has a plan, and
    the ranks divide its heads, neurons and words: :func:`skills_pipe.training.config.parallel_rules.unshareable`.

    Raises:
        ValueError: the model has parameters that the plan of its family does not know.
    """
    plan = PLANS[model.config.model_type]
    known: Parameters = {}
    for name, module in list(model.named_modules()):
        layer = plan.get(re.sub(r"\.\d+\.", ".*.", name))
        if layer is not None:
            spread(module, layer, group, known)
            if hasattr(module, "arrange"):
                module.arrange(model.config)
        elif any(True for _ in module.parameters(recurse=False)):
            raise ValueError(f"no tensor parallel plan for {name} ({type(module).__name__})")
