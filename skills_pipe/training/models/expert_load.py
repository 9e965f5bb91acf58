"""How the routers of a mixture of experts share out the tokens of a step: counted on the device, read once."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

ROUTERS: Mapping[str, str] = {"qwen3_moe": "model.layers.*.mlp.gate", "gpt_oss": "model.layers.*.mlp.router"}
"""Name of the modules that choose the experts of each token, by ``model_type``."""

_counted: ContextVar[Tensor | None] = ContextVar("counted", default=None)
"""int64 ``[tokens]``, 1 for tokens that count: of those which pass the routers now. None: none do."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertLoad:
    """How often each expert was chosen.

    Attributes:
        counts: int64 ``[layers with experts, experts]``, on the device; of this rank's tokens.
    """

    counts: Tensor

    @classmethod
    def of(cls, model: PreTrainedModel, device: torch.device) -> ExpertLoad | None:
        """Have the routers of ``model`` counted on ``device`` from here on; None: it has none.

        Routers become what they are and count: after all that changes classes of theirs, before layers are compiled.
        """
        pattern = ROUTERS.get(model.config.model_type)
        named = model.named_modules() if pattern is not None else ()
        routers = [module for name, module in named if re.sub(r"\.\d+\.", ".*.", name) == pattern]
        if not routers:
            return None
        experts = {int(router.num_experts) for router in routers}  # type: ignore[arg-type]
        counts = torch.zeros(len(routers), max(experts), dtype=torch.int64, device=device)
        for router, own in zip(routers, counts, strict=True):
            # A model may be trained by one backend after the other: the last one has the counts.
            if not isinstance(router, _CountingRouter):
                router.__class__ = _counting(type(router))
            router.chosen_so_far = own
        return cls(counts=counts)

    def reset(self) -> None:
        """Begin a step."""
        self.counts.zero_()


@contextmanager
def counting(tokens: Tensor | None) -> Iterator[None]:
    """Count the choices for ``tokens``: int64, 1 for those that count, in their order; None: for none.

    Only in this thread and until the end of the block: what is computed again in a backward pass counts no more.
    """
    before = _counted.set(tokens.flatten() if tokens is not None else None)
    try:
        yield
    finally:
        _counted.reset(before)


def load_metrics(counts: Tensor) -> dict[str, float]:
    """By name, of the counts of all ranks; nothing where no token was counted.

    Args:
        counts: int64 ``[layers, experts]``.
    """
    if not bool(counts.any()):
        return {}
    # Of fp64: numbers of tokens are exact in it.
    imbalance = counts.amax(dim=1) / counts.double().mean(dim=1)
    return {
        "train/moe/load_imbalance": float(imbalance.max()),
        "train/moe/mean_load_imbalance": float(imbalance.mean()),
        "train/moe/unused_experts": float((counts == 0).sum()),
    }


class _CountingRouter(nn.Module):
    """Mixed into what chooses experts.

    Attributes:
        chosen_so_far: int64 ``[experts]``; not among what is saved.
    """

    chosen_so_far: Tensor

    def forward(self, hidden: Tensor) -> Any:
        """What the module makes of the tokens: logits, weights, and int64 ``[tokens, k]``, the experts of each."""
        logits, weights, chosen = super().forward(hidden)
        _count(self.chosen_so_far, chosen)
        return logits, weights, chosen


@torch.library.custom_op(
    "skills_pipe::count_choices", mutates_args=["counts"], schema="(Tensor(a!) counts, Tensor chosen) -> ()"
)
def _count(counts: Tensor, chosen: Tensor) -> None:
    # An operation of its own: compiled layers call it as it is, and so see what counts when they run.
    tokens = _counted.get()
    if tokens is not None:
        # Not by bincount, which waits for the device.
        counts.scatter_add_(0, chosen.flatten(), tokens.repeat_interleave(chosen.shape[1]))


@functools.cache
def _counting(router: type[nn.Module]) -> type[nn.Module]:
    return type(f"Counting{router.__name__}", (_CountingRouter, router), {})
