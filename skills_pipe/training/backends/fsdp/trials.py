"""Kernels are tried on this very device, beside our own, before anything is trained with them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec

import torch
from transformers import PreTrainedModel

from skills_pipe.errors import ConfigError
from skills_pipe.training.backends.fsdp.kernels import AttentionChoice, LossChoice
from skills_pipe.training.checkpoint.ranks import on_all, rank
from skills_pipe.training.config.rules.kernels import ATTENTION_KEY
from skills_pipe.training.models import liger
from skills_pipe.training.models.kernels import varlen
from skills_pipe.training.models.kernels.agreement import disagreement
from skills_pipe.training.models.kernels.attention_cases import Attention
from skills_pipe.training.models.kernels.loss_cases import loss_cases, ours
from skills_pipe.training.models.kernels.varlen import VarlenKernel
from skills_pipe.training.models.loss import LossKernel

Finder = Callable[[torch.device], VarlenKernel | None]
Trial = Callable[[], str | None]
"""Tries a kernel on this rank: what speaks against it, as a part of a sentence from its verb on; None: nothing."""

NOT_INSTALLED = "is not installed"
TAKES_NOTHING = "computes no layer of this model in this precision"
_EXPECTED = (NOT_INSTALLED, TAKES_NOTHING)
"""What nobody needs to be told who asked for no kernel by its name."""

_FLASH: Mapping[str, Finder] = {"FlashAttention 3": varlen.flash_attn_3, "FlashAttention 2": varlen.flash_attn_2}
_TORCH: Mapping[str, Finder] = {"varlen_attn of torch": varlen.torch_varlen}
_FINDERS: Mapping[AttentionChoice, Mapping[str, Finder]] = {
    "auto": {**_FLASH, **_TORCH},
    "flash_attn": _FLASH,
    "varlen_attn": _TORCH,
    "sdpa": {},
}


class KernelWarning(UserWarning):
    """A kernel that is installed is not used."""


def first_that_agrees(trials: Mapping[str, Trial]) -> tuple[str | None, dict[str, str]]:
    """Try kernels one after the other, on every rank, until nothing speaks against one on any of them.

    Args:
        trials: by the names of the kernels, the same names on every rank.

    Returns:
        Its name, None when there is none, and what speaks against those before it; the same on every rank.
    """
    refused: dict[str, str] = {}
    for name, trial in trials.items():
        verdicts = on_all(trial)
        against = [(number, verdict) for number, verdict in enumerate(verdicts) if verdict is not None]
        if not against:
            return name, refused
        number, verdict = against[0]
        refused[name] = verdict if len(set(verdicts)) == 1 else f"{verdict} (rank {number})"
    return None, refused


def tried_attention(
    model: PreTrainedModel, wanted: AttentionChoice, dtype: torch.dtype, device: torch.device, *, tensor: int
) -> VarlenKernel | None:
    """The first kernel for attention that agrees with ours, None when there is none.

    Args:
        model: with its layers whole.
        wanted: whose kernel.
        dtype: in which it computes.
        device: of this rank.
        tensor: ranks that share each layer.

    Raises:
        ConfigError: it was asked for by name.
    """
    attention, finders = Attention.of(model, ranks=tensor), _FINDERS[wanted]
    trials = {name: partial(_try_attention, find, attention, dtype, device) for name, find in finders.items()}
    name, refused = first_that_agrees(trials)
    if name is None and wanted in ("flash_attn", "varlen_attn"):
        raise _refusal(refused, ATTENTION_KEY, f"set {ATTENTION_KEY}=auto")
    _tell(refused)
    return finders[name](device) if name is not None else None


def tried_loss(
    model: PreTrainedModel, wanted: LossChoice, dtype: torch.dtype, device: torch.device, *, tensor: int
) -> LossKernel:
    """What computes the loss: Liger's kernels where they can and agree with ours.

    Args:
        model: with its layers whole.
        wanted: what was asked for.
        dtype: in which it computes.
        device: of this rank.
        tensor: ranks that share each layer, and so the words.

    Raises:
        ConfigError: they cannot, or do not agree, and were asked for by name.
    """
    if wanted == "chunked" or (wanted == "auto" and tensor > 1):
        return "chunked"
    if wanted == "liger":
        on_all(lambda: liger.require(device))
    name, refused = first_that_agrees({"Liger": partial(_try_liger, model, dtype, device)})
    if name is None and wanted == "liger":
        raise _refusal(refused, liger.KEY, f"set {liger.KEY}=chunked")
    _tell(refused)
    return "liger" if name is not None else "chunked"


def _try_attention(find: Finder, attention: Attention, dtype: torch.dtype, device: torch.device) -> str | None:
    try:
        kernel = find(device)
    except Exception as error:  # a package that was built for another torch fails in many ways
        return f"cannot be imported: {error}"
    if kernel is None:
        return NOT_INSTALLED
    if not any(kernel.takes(dtype, layer) for layer in attention.layers):
        return TAKES_NOTHING
    found = disagreement(kernel, None, attention.cases(kernel, dtype, device), dtype)
    if found is not None:
        require_usable(device, f"{kernel.name} {found}", where=ATTENTION_KEY, fix=f"set {ATTENTION_KEY}=sdpa")
    return found


def _try_liger(model: PreTrainedModel, dtype: torch.dtype, device: torch.device) -> str | None:
    if find_spec("liger_kernel") is None:
        return NOT_INSTALLED
    try:
        liger.require(device)
    except ConfigError as error:
        return f"cannot be used: {error.what}"
    except Exception as error:  # as above
        return f"cannot be imported: {error}"
    found = disagreement(liger.summed_by_liger, ours, loss_cases(model, dtype, device), dtype)
    if found is not None:
        require_usable(device, f"Liger {found}", where=liger.KEY, fix=f"set {liger.KEY}=chunked")
    return found


def require_usable(device: torch.device, told: str, *, where: str, fix: str) -> None:
    """Make sure that a GPU computes on after a kernel that is not believed; what goes wrong there may stay wrong.

    Raises:
        ConfigError: it does not.
    """
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        raise ConfigError(f"{told}, and left the GPU unusable", where=where, fix=fix) from error


def _refusal(refused: Mapping[str, str], key: str, fix: str) -> ConfigError:
    return ConfigError("; ".join(f"{name} {verdict}" for name, verdict in refused.items()), where=key, fix=fix)


def _tell(refused: Mapping[str, str]) -> None:
    if rank() == 0:
        for name, verdict in refused.items():
            if verdict not in _EXPECTED:
                warnings.warn(KernelWarning(f"{name} is not used: it {verdict}"), stacklevel=4)
