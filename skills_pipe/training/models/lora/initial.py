"""First values of adapters: the model computes what it computed before, and every rank draws the same numbers."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.models.lora.apply import adapted_modules
from skills_pipe.training.models.quantized import dense


@torch.no_grad()
def initialise(model: nn.Module, spec: AdapterSpec, *, seed: int) -> None:
    """Set all adapters of ``model`` to their first values: A random, B zero, lengths of rows those of W.

    A depends on ``seed`` and the name of the layer alone, not on the number of ranks, on other layers or on the state
    of torch's generator. The model may be sharded already; its weights must be there.
    """
    for name, module in adapted_modules(model).items():
        generator = torch.Generator().manual_seed(_seed_of(name, seed))
        first = torch.empty(spec.dim, module.in_features)
        if spec.initial == "xavier":
            nn.init.xavier_normal_(first, generator=generator)
        else:
            nn.init.kaiming_uniform_(first, a=math.sqrt(5), generator=generator)
        _assign(module.lora_A.weight, first)
        nn.init.zeros_(module.lora_B.weight)
        if module.lora_magnitude_vector is not None:
            lengths = torch.linalg.vector_norm(dense(module.weight), dim=1, dtype=torch.float32)
            _assign(module.lora_magnitude_vector.weight, lengths)


def _seed_of(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little")


def _assign(parameter: nn.Parameter, whole: Tensor) -> None:
    """Set a parameter, or this rank's part of one, to the values of a whole tensor, or of one that is shared alike."""
    if not isinstance(parameter, DTensor) or isinstance(whole, DTensor):
        parameter.copy_(whole)
        return
    shape, offset = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    box = tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))
    parameter.to_local().copy_(whole[box])
