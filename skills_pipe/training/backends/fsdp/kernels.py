"""Which kernels compute attention and the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedModel

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.config.rules.kernels import ATTENTION_KEY
from skills_pipe.training.models import liger
from skills_pipe.training.models.kernels.varlen import VarlenKernel, with_version
from skills_pipe.training.models.loss import LossKernel

AttentionChoice = Literal["auto", "flash_attn", "varlen_attn", "sdpa"]
LossChoice = Literal["auto", "chunked", "liger"]


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """What computes attention and the loss, the same on every rank.

    Attributes:
        attention: of all documents of a row at once; None: of each by itself, as in layers that it does not take.
        loss: of rows without weights.
    """

    attention: VarlenKernel | None = None
    loss: LossKernel = "chunked"

    @property
    def names(self) -> dict[str, str]:
        """As users are told them, and as checkpoints record them."""
        attention = "our own, document by document" if self.attention is None else self.attention.name
        loss = "our own" if self.loss == "chunked" else with_version("liger-kernel")
        return {"attention": attention, "loss": loss}


def choose_kernels(
    model: PreTrainedModel,
    *,
    attention: AttentionChoice,
    loss: LossChoice,
    dtype: torch.dtype,
    layout: Layout,
    device: torch.device,
) -> Kernels:
    """On a GPU those that agree with our own there, on every rank; elsewhere our own, and nothing is tried or imported.

    Args:
        model: before ranks share its layers; its sizes are looked at.
        attention: whose kernel; ``auto``: any.
        loss: ``auto``: Liger's where it can.
        dtype: in which the model computes.
        layout: how the ranks share the work.
        device: of this rank.

    Raises:
        ConfigError: a kernel that was asked for by name is not there, is for GPUs, or does not agree.
    """
    if device.type == "cuda":
        from skills_pipe.training.backends.fsdp.trials import tried_attention, tried_loss

        chosen = Kernels(
            attention=tried_attention(model, attention, dtype, device, tensor=layout.tensor),
            loss=tried_loss(model, loss, dtype, device, tensor=layout.tensor),
        )
        # What was tried took memory that is none of the training's.
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return chosen
    if loss == "liger":
        liger.require(device)
    if attention in ("flash_attn", "varlen_attn"):
        what = f"{attention} is for GPUs, and this is {device.type}"
        raise ConfigError(what, where=ATTENTION_KEY, fix=f"set {ATTENTION_KEY}=auto")
    return Kernels()
