"""Attention of all documents of a row by one kernel: those that may be found on a GPU, called in one way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor

from skills_pipe.training.models.scores import Scores

Lengths = tuple[tuple[int, ...], tuple[int, ...]]
"""Of each document, how many of its tokens look, and how many are looked at."""

Offsets = tuple[Tensor, Tensor]
"""int32 ``[documents + 1]`` each: where the tokens of each document start, among the queries and among the keys."""

_HOPPER = 9
"""First number of the compute capability of the GPUs that FlashAttention 3 is for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VarlenKernel:
    """A kernel for documents of any lengths, in half precision and without dropout.

    Attributes:
        name: as users are told: ``flash-attn 2.8.3``.
        compute: of query, key and value ``[tokens, heads, head_dim]``, offsets, the longest document by queries and by
            keys, and the layer: ``[tokens, heads, head_dim]``. The last query of a document sees its last key, as it
            has to be where fewer tokens look.
        caps: whether it can cap scores.
    """

    name: str
    compute: Callable[[Tensor, Tensor, Tensor, Offsets, tuple[int, int], Scores], Tensor]
    caps: bool

    def takes(self, dtype: torch.dtype, layer: Scores) -> bool:
        """Whether it can compute such a layer."""
        half = dtype in (torch.bfloat16, torch.float16)
        plain = layer.dropout == 0.0 and layer.sinks is None
        return half and plain and (self.caps or layer.softcap is None)

    def __call__(
        self, tensors: tuple[Tensor, Tensor, Tensor], lengths: Lengths, offsets: Offsets, layer: Scores
    ) -> Tensor:
        """Causal attention within documents: ``[1, tokens, heads, head_dim]`` of ``[1, heads, tokens, head_dim]``."""
        query, key, value = (tensor[0].transpose(0, 1) for tensor in tensors)
        longest = (max(lengths[0]), max(lengths[1]))
        return self.compute(query, key, value, offsets, longest, layer).unsqueeze(0)


def flash_attn_3(device: torch.device) -> VarlenKernel | None:
    """FlashAttention 3, where it is installed and the GPU is one that it is for."""
    if find_spec("flash_attn_interface") is None or torch.cuda.get_device_capability(device)[0] != _HOPPER:
        return None
    from flash_attn_interface import flash_attn_varlen_func

    return VarlenKernel(name=with_version("flash-attn-3"), compute=as_flash_attn(flash_attn_varlen_func), caps=True)


def flash_attn_2(device: torch.device) -> VarlenKernel | None:
    """FlashAttention 2, where it is installed."""
    if find_spec("flash_attn") is None:
        return None
    from flash_attn import flash_attn_varlen_func

    return VarlenKernel(name=with_version("flash-attn"), compute=as_flash_attn(flash_attn_varlen_func), caps=True)


def torch_varlen(device: torch.device) -> VarlenKernel | None:
    """Torch's own, which versions before 2.10 lack."""
    if find_spec("torch.nn.attention.varlen") is None:
        return None
    from torch.nn.attention.varlen import varlen_attn  # the module needs a CUDA build

    def compute(
        query: Tensor, key: Tensor, value: Tensor, offsets: Offsets, longest: tuple[int, int], layer: Scores
    ) -> Tensor:
        grouped = query.shape[1] != key.shape[1]
        found = varlen_attn(
            query,
            key,
            value,
            *offsets,
            *longest,
            scale=layer.scaling,
            window_size=_window(layer),
            enable_gqa=grouped,
        )
        return cast(Tensor, found)

    return VarlenKernel(name="varlen_attn of torch", compute=compute, caps=False)


def as_flash_attn(
    function: Callable[..., Any],
) -> Callable[[Tensor, Tensor, Tensor, Offsets, tuple[int, int], Scores], Tensor]:
    """How ``flash_attn_varlen_func`` of flash-attn 2 or 3 is called here."""

    def compute(
        query: Tensor, key: Tensor, value: Tensor, offsets: Offsets, longest: tuple[int, int], layer: Scores
    ) -> Tensor:
        # Older versions lack what is given only where it is needed.
        more: dict[str, Any] = {} if layer.softcap is None else {"softcap": layer.softcap}
        if torch.are_deterministic_algorithms_enabled():
            more["deterministic"] = True
        found = function(
            query,
            key,
            value,
            *offsets,
            *longest,
            softmax_scale=layer.scaling,
            causal=True,
            window_size=_window(layer),
            **more,
        )
        # Early versions of flash-attn 3 give the normalisers besides.
        return cast(Tensor, found[0] if isinstance(found, tuple) else found)

    return compute


def _window(layer: Scores) -> tuple[int, int]:
    """How many tokens before itself, and behind itself, a token sees; -1: all."""
    return (-1 if layer.window is None else layer.window - 1, 0)


def with_version(package: str) -> str:
    """``flash-attn 2.8.3``; the name alone where it was not installed under it, as builds of one's own are."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return package
