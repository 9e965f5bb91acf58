"""How a model is spread over ranks by FSDP2."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from skills_pipe.training.backends.fsdp.expert_parallel.layer import SharedExperts
from skills_pipe.training.backends.fsdp.mesh import Mesh
from skills_pipe.training.models.layers import layers_of
from skills_pipe.training.models.lora.lengths import RowLengths
from skills_pipe.training.models.loss import SupervisedLoss


def shard(loss: SupervisedLoss, mesh: Mesh, dtype: torch.dtype, *, offload: bool = False) -> None:
    """Shard each layer of the model, then what is left; experts that ranks share over those that have the same ones.

    The forward and backward pass compute in ``dtype``, gradients are summed over ranks in fp32; what tensor parallel
    ranks know of the gradient of a whole weight they sum in ``dtype``, unless several microbatches are accumulated.
    They are not averaged: the loss is divided by the tokens of all ranks already.

    With ``offload`` shards and their gradients lie in host memory: a layer travels to the device that computes.
    """
    place = _place(mesh, offload=offload)
    # Inputs keep their type: what is no activation, as the weights of labels, must not be rounded.
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    spread = partial(fully_shard, mp_policy=policy, offload_policy=place)
    for layer in layers_of(loss.model):
        for module in layer.modules():
            if isinstance(module, SharedExperts) and mesh.expert_fsdp is not None:
                spread(module, mesh=mesh.expert_fsdp)
        _shard_lengths(layer, mesh, dtype, place)
        spread(layer, mesh=mesh.fsdp)
    _shard_lengths(loss, mesh, dtype, place)
    spread(loss, mesh=mesh.fsdp)
    register_fsdp_forward_method(loss, "generate")
    for module in loss.modules():
        if isinstance(module, FSDPModule):
            # A plain sum and a factor of its own, because gloo has no reduction with a factor.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def _place(mesh: Mesh, *, offload: bool) -> OffloadPolicy:
    # Memory is pinned for a device to copy from and to; without one torch knows no pinned memory.
    return CPUOffloadPolicy(pin_memory=mesh.fsdp.device_type != "cpu") if offload else OffloadPolicy()


def _shard_lengths(module: nn.Module, mesh: Mesh, dtype: torch.dtype, place: OffloadPolicy) -> None:
    """Lengths of rows keep float32, all of a layer's in one message between ranks."""
    found = [each for each in module.modules() if isinstance(each, RowLengths) and not isinstance(each, FSDPModule)]
    if found and dtype != torch.float32:
        exact = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
        fully_shard(found, mesh=mesh.fsdp, mp_policy=exact, offload_policy=place)


def reshard(loss: SupervisedLoss) -> None:
    """Shard what a forward pass without a backward pass has left whole."""
    for module in loss.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
