"""Rows on which a kernel for attention is tried: small ones, with the layers of the model that is to be trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skills_pipe.training.models.attention import attend
from skills_pipe.training.models.kernels.varlen import VarlenKernel
from skills_pipe.training.models.layers import windows_of
from skills_pipe.training.models.scores import Scores

_CAPPED = "gemma2"
"""The family whose layers cap scores; others have the key in their configuration and do not."""

_SHORT = 24
"""A window that documents of some hundred tokens show; the real one may be as long as they are, or much longer."""

_ALL_LOOK = (5, 129, 1, 200, 64)
"""Tokens of documents: one, few, and more than the tiles of kernels have."""

_SOME_LOOK = (5, 100, 1, 33, 64)
"""Tokens of the same documents that look, as where ranks share a row."""

_LAST_LOOK = 33
"""Tokens that look at a long document: few, so that it costs little."""

_FAR = 4096
"""How far they look at least, unless their window ends before: kernels go other ways there than in short documents."""

_STEEP = 0.2
"""Part of the cap that scores have on average, so that many are capped and softmax still has several terms."""


@dataclass(frozen=True, kw_only=True)
class Attention:
    """What attention is in a model, on one rank.

    Attributes:
        heads, kv_heads, head_dim: sizes.
        layers: one of each kind.
    """

    heads: int
    kv_heads: int
    head_dim: int
    layers: tuple[Scores, ...]

    @classmethod
    def of(cls, model: PreTrainedModel, *, ranks: int = 1) -> Attention:
        """Of a model of which so many ranks share each layer, before they do."""
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        parts: list[Any] = [part for part in model.modules() if hasattr(part, "scaling") and hasattr(part, "head_dim")]
        sinks = next((part.sinks for part in parts if getattr(part, "sinks", None) is not None), None)
        kinds = {(part.scaling, window) for part in parts for window in windows_of(config)}
        # GPT-2 has its own name for it.
        dropout = getattr(config, "attention_dropout", None) or getattr(config, "attn_pdrop", None) or 0.0
        return cls(
            heads=heads // ranks,
            kv_heads=(getattr(config, "num_key_value_heads", None) or heads) // ranks,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            layers=tuple(
                Scores(
                    scaling=scaling,
                    dropout=dropout,
                    window=window,
                    softcap=config.attn_logit_softcapping if config.model_type == _CAPPED else None,
                    sinks=sinks,
                )
                for scaling, window in sorted(kinds, key=str)
            ),
        )

    def cases(self, kernel: VarlenKernel, dtype: torch.dtype, device: torch.device) -> Iterator[AttentionCase]:
        """Rows for each kind of layer that ``kernel`` takes."""
        for layer in self.layers:
            if not kernel.takes(dtype, layer):
                continue
            short = layer if layer.window is None else replace(layer, window=min(layer.window, _SHORT))
            yield AttentionCase("documents", self, short, (_ALL_LOOK, _ALL_LOOK), dtype, device)
            yield AttentionCase("documents whose last tokens look", self, short, (_SOME_LOOK, _ALL_LOOK), dtype, device)
            # A row that stands for none, where there are more ranks than rows, is one token.
            yield AttentionCase("one token", self, layer, ((1,), (1,)), dtype, device)
            reach = min(layer.window or _FAR, _FAR)
            seen = reach + max(reach // 8, _LAST_LOOK)
            name = f"a document of {seen} tokens"
            yield AttentionCase(name, self, layer, ((_LAST_LOOK, 5), (seen, 5)), dtype, device)


class AttentionCase:
    """One row through one layer, for :mod:`skills_pipe.training.models.kernels.agreement`.

    Args:
        name: what is special.
        attention: sizes.
        layer: the kind.
        lengths: of the documents.
        dtype: to which queries, keys, values and the gradient of the output are rounded.
        device: where they lie.
    """

    def __init__(
        self,
        name: str,
        attention: Attention,
        layer: Scores,
        lengths: tuple[tuple[int, ...], tuple[int, ...]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.name = name if layer.softcap is None else f"{name} and capped scores"
        self._layer, self._lengths = layer, lengths
        generator = torch.Generator().manual_seed(0)
        looking, seen = (sum(each) for each in lengths)
        sizes = ((attention.heads, looking), (attention.kv_heads, seen), (attention.kv_heads, seen))
        query, key, value, slope = (
            torch.randn(1, heads, tokens, attention.head_dim, generator=generator)
            for heads, tokens in (*sizes, sizes[0])
        )
        # Scores have this spread, whatever they are scaled by: as in trained models softmax has several terms.
        scaling = layer.scaling or attention.head_dim**-0.5
        spread = max(1.0, _STEEP * layer.softcap) if layer.softcap is not None else 1.0
        query *= spread / (scaling * attention.head_dim**0.5)
        self._tensors = tuple(each.to(device, dtype) for each in (query, key, value))
        self._slope = slope.transpose(1, 2).to(device, dtype)
        self._offsets = tuple(_offsets(each, device) for each in lengths)

    def __call__(self, kernel: VarlenKernel | None, dtype: torch.dtype) -> Mapping[str, Tensor]:
        """Output and gradients, by ``kernel`` or ours."""
        query, key, value = (each.to(dtype, copy=True).requires_grad_() for each in self._tensors)
        first, second = self._offsets
        output = attend((query, key, value), self._lengths, (first, second), self._layer, kernel)
        gradients = torch.autograd.grad(output, (query, key, value), self._slope.to(dtype))
        names = ("output", "gradient of queries", "gradient of keys", "gradient of values")
        found = dict(zip(names, (output.detach(), *gradients), strict=True))
        if max(self._lengths[1]) == 1:
            # Who sees one token alone does so whatever the scores are: their gradients are rounding, and no more.
            del found["gradient of queries"], found["gradient of keys"]
        return found


def _offsets(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)
