"""Half-precision compute with fp32 master weights, in one process and without sharding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from skills_pipe.training.models.lora.lengths import RowLengths


@dataclass(frozen=True, kw_only=True, eq=False)
class _Slot:
    """One place of a parameter; tied parameters have several."""

    module: nn.Module
    name: str
    master: nn.Parameter
    compute: nn.Parameter


class ComputeCopies:
    """Lends a module half-precision copies of its parameters while it computes.

    Outside of :meth:`lent` the module holds its fp32 parameters, as the optimizer and checkpoints need them. Inside,
    it holds the copies; what is differentiated there is added to the fp32 ``grad`` of the fp32 parameters as soon as
    it is there. This is the arithmetic of FSDP2 with ``MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=fp32)``,
    without its copies between ranks that do not exist.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        copies: dict[nn.Parameter, nn.Parameter] = {}
        self._slots = []
        for owner in module.modules():
            if isinstance(owner, RowLengths):
                continue  # they compute in fp32
            for name, master in owner._parameters.items():
                # What is not trained may have the type already, or be packed: it computes as it is.
                if master is None or (not master.requires_grad and _computes_as_it_is(master, dtype)):
                    continue
                if master not in copies:
                    copies[master] = _copy(master, dtype)
                self._slots.append(_Slot(module=owner, name=name, master=master, compute=copies[master]))
        self._masters = [master.detach() for master in copies]
        self._computes = [compute.detach() for compute in copies.values()]

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The module computes with fresh copies inside this block."""
        torch._foreach_copy_(self._computes, self._masters)
        for slot in self._slots:
            slot.module._parameters[slot.name] = slot.compute
        try:
            yield
        finally:
            for slot in self._slots:
                slot.module._parameters[slot.name] = slot.master


def _computes_as_it_is(master: nn.Parameter, dtype: torch.dtype) -> bool:
    return master.dtype == dtype or not master.is_floating_point()


def _copy(master: nn.Parameter, dtype: torch.dtype) -> nn.Parameter:
    compute = nn.Parameter(master.detach().to(dtype), requires_grad=master.requires_grad)
    if master.requires_grad:
        compute.register_post_accumulate_grad_hook(partial(_hand_over, master))
    return compute


def _hand_over(master: nn.Parameter, compute: torch.Tensor) -> None:
    """Add the copy's gradient to the master's and forget it."""
    if master.grad is None:
        master.grad = compute.grad.to(master.dtype)
    else:
        master.grad.add_(compute.grad)
    compute.grad = None
