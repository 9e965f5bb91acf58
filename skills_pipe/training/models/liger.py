"""The loss by Liger's kernels, which are no part of this package: for who chooses them, on GPUs."""

from __future__ import annotations

from importlib.util import find_spec
from inspect import signature

import torch
from torch import Tensor

from skills_pipe.errors import ConfigError
from skills_pipe.training.data.batches import IGNORE

KEY = "policy.dtensor_cfg.loss_kernel"

_BY_PLACE = (
    *("_input", "weight", "target", "bias", "ce_weight", "ignore_index", "lse_square_scale", "label_smoothing"),
    *("reduction", "softcap", "return_z_loss", "accum_dtype"),
)
"""Arguments of Liger's function, as far as they are given here."""


def require(device: torch.device) -> None:
    """Make sure that Liger can compute on ``device``.

    Raises:
        ConfigError: it cannot, or is not installed.
    """
    if device.type != "cuda":
        raise ConfigError(
            f"Liger's kernels are for GPUs, and this is {device.type}", where=KEY, fix=f"set {KEY}=chunked"
        )
    if find_spec("liger_kernel") is None:
        raise ConfigError(
            "Liger is not installed where training runs",
            where=KEY,
            fix=f"pip install liger-kernel, or set {KEY}=chunked",
        )
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    if tuple(signature(LigerFusedLinearCrossEntropyFunction.forward).parameters)[1 : 1 + len(_BY_PLACE)] != _BY_PLACE:
        raise ConfigError(
            "this version of Liger takes other arguments than 0.8.5, or sums gradients in half precision",
            where=KEY,
            fix=f"pip install liger-kernel==0.8.5, or set {KEY}=chunked",
        )


def summed_by_liger(
    hidden: Tensor, weight: Tensor, labels: Tensor, *, scale: float, softcap: float | None = None
) -> Tensor:
    """:func:`skills_pipe.training.models.loss.summed_cross_entropy` of one row or more, without factors.

    Losses are summed in fp32, and so are the chunks of the weight's gradient; one that is frozen gets none.

    Args:
        hidden: ``[n, width]``, n at least 1.
        weight: ``[vocabulary, width]``, all words.
        labels: int64 ``[n]``.
        scale: factor on the loss.
        softcap: see :class:`skills_pipe.training.models.head.Head`.
    """
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    # By place: no bias, no weights of classes, no z loss, nothing smoothed; sums of gradients in fp32.
    loss: Tensor = LigerFusedLinearCrossEntropyFunction.apply(
        hidden, weight, labels, None, None, IGNORE, 0.0, 0.0, "sum", softcap, False, torch.float32
    )[0]
    return loss * scale
