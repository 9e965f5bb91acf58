"""Matrices on their way from safetensors files into 4 bit, some rows at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import local

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from skills_pipe.training.checkpoint.box import BoxReader
from skills_pipe.training.config.quantization import BLOCK, SCALES_BLOCK
from skills_pipe.training.models.pretrained.weights import READERS, PretrainedWeights, local_boxes
from skills_pipe.training.models.quantized.layers import quantized_matrices
from skills_pipe.training.models.quantized.library import functions
from skills_pipe.training.models.quantized.matrix import QuantizedMatrix

_AT_ONCE = 1 << 18
"""Weights that a thread packs at one time: 1 MiB in float32, and what bitsandbytes makes of them on the way."""


@torch.no_grad()
def fill_quantized(model: nn.Module, weights: PretrainedWeights) -> None:
    """Read and pack the matrices of ``model`` that are in 4 bit, or this rank's rows of them; on every rank.

    What is packed is float32, whatever ``policy.precision`` says, and does not depend on how many ranks there are.
    """
    readers = local()
    with ThreadPoolExecutor(READERS) as pool:
        found = quantized_matrices(model)
        waiting = [pool.submit(_pack, name, matrix, weights, readers) for name, matrix in found.items()]
        # In this order on all ranks, which need each other's scales.
        for matrix, scales in zip(found.values(), waiting, strict=True):
            _set_scales(matrix, scales.result())


def _pack(name: str, matrix: QuantizedMatrix, weights: PretrainedWeights, readers: local) -> Tensor:
    """Fill ``packed``; returns the scales, float32 ``[rows, columns / 64]`` of this rank."""
    if not hasattr(readers, "own"):
        readers.own = BoxReader()
    ((first, _), packed), *_ = local_boxes(matrix.packed)
    scales = torch.empty(len(packed), matrix.columns // BLOCK, device=packed.device)
    step = max(1, _AT_ONCE // matrix.columns)
    for begin in range(0, len(packed), step):
        rows = slice(begin, min(begin + step, len(packed)))
        values = torch.empty(rows.stop - begin, matrix.columns, device=packed.device)
        weights.read(name, (first + begin, 0), values, readers.own)
        part, state = functions().quantize_4bit(values, blocksize=BLOCK, quant_type=matrix.spec.values)
        packed[rows].copy_(part.view(-1, matrix.columns // 2))
        scales[rows].copy_(state.absmax.view(-1, matrix.columns // BLOCK))
    return scales


def _set_scales(matrix: QuantizedMatrix, scales: Tensor) -> None:
    ((first, _), mine), *_ = local_boxes(matrix.scales)
    if not matrix.spec.double:
        mine.copy_(scales.view(torch.uint8))
        return
    # Blocks of scales go over the ends of rows, and their mean is that of the whole matrix.
    whole = _of_all_ranks(scales, matrix).reshape(-1)
    mean = whole.mean()
    packed, state = functions().quantize_blockwise(whole - mean, blocksize=SCALES_BLOCK)
    matrix.offset.copy_(mean)
    matrix.second.copy_(state.absmax)
    mine.copy_(packed.view(matrix.rows, -1)[first : first + len(mine)])


def _of_all_ranks(scales: Tensor, matrix: QuantizedMatrix) -> Tensor:
    shared = matrix.scales
    if not isinstance(shared, DTensor):
        return scales
    return DTensor.from_local(
        scales, shared.device_mesh, shared.placements, run_check=False, shape=shared.shape, stride=shared.stride()
    ).full_tensor()
