"""Activations that are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import PreTrainedModel

Granularity = Literal["full", "selective"]

_KEPT = frozenset(
    {
        "aten.mm.default",
        "aten.addmm.default",
        "aten._grouped_mm.default",
        "aten._scaled_dot_product_flash_attention.default",
        "aten._scaled_dot_product_flash_attention_for_cpu.default",
        "aten._scaled_dot_product_efficient_attention.default",
        "aten._scaled_dot_product_cudnn_attention.default",
        "torch_attn._varlen_attn.default",
        "flash_attn._flash_attn_varlen_forward.default",
        "flash_attn_3._flash_attn_forward.default",
    }
)
"""Products with weights, and attention in one kernel: they take nearly all of the time of a layer.

Scores that no kernel computes (``aten.bmm``) are larger than what keeping the rest saves."""

_WRITTEN_INTO = {"gpt_oss": frozenset({"aten._grouped_mm.default"})}
"""``model_type`` -> operations to whose result the model adds something in place: what was kept would not be it."""


def recompute_layers(model: PreTrainedModel, granularity: Granularity) -> None:
    """Keep less of each layer of ``model`` from the forward to the backward pass; gradients have the same bits.

    Args:
        model: its layers are changed.
        granularity: ``full`` keeps the input of a layer, and computes the layer twice. ``selective`` keeps besides what
            takes long to compute: norms, activation functions and rotations are computed twice, products and attention
            once (Korthikanti et al. 2022, section 5, keep all but attention; kernels need no scores, so that here
            attention is among what is kept).
    """
    how: dict[str, Any] = {"use_reentrant": False}
    if granularity == "selective":
        kept = _KEPT - _WRITTEN_INTO.get(model.config.model_type, frozenset())
        how["context_fn"] = partial(create_selective_checkpoint_contexts, partial(_policy, kept))
    model.activation_checkpointing_enable(activation_checkpointing_kwargs=how)


def _policy(kept: frozenset[str], _context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if str(operation) in kept else CheckpointPolicy.PREFER_RECOMPUTE
