"""A matrix in 4 bit, and products with it."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from skills_pipe.training.config.quantization import BLOCK, SCALES_BLOCK, QuantizationSpec
from skills_pipe.training.models.quantized.library import functions


class QuantizedMatrix(nn.Module):
    """A frozen ``W`` ``[rows, columns]``: each block of 64 weights of a row is a scale times 16 values.

    Everything that has a row for each row of W is a parameter, so that ranks share it as they share W, and of bytes,
    which no mixed precision rounds:

    ``packed``
        two weights a byte, ``[rows, columns / 2]``.
    ``scales``
        one for each block: float32, ``[rows, 4 * columns / 64]`` bytes; with ``spec.double`` 8 bit,
        ``[rows, columns / 64]``, which 256 by 256 have scales of their own, ``second``, and a mean, ``offset``. Those
        are buffers: every rank has them.

    Args:
        rows, columns: of W; columns are whole blocks.
        spec: how it is kept.
        dtype: in which it computes.
        device: of what it holds; the values are not set.
    """

    def __init__(
        self, rows: int, columns: int, spec: QuantizationSpec, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__()
        if columns % BLOCK:
            raise ValueError(f"{columns} columns are no whole blocks of {BLOCK}")
        self.rows, self.columns, self.spec, self.dtype = rows, columns, spec, dtype
        blocks = columns // BLOCK
        self.packed = _bytes(rows, columns // 2, device)
        self.scales = _bytes(rows, blocks * (1 if spec.double else 4), device)
        count = -(-rows * blocks // SCALES_BLOCK)
        # They are made from W anew: no checkpoint holds them.
        self.register_buffer("second", torch.zeros(count) if spec.double else None, persistent=False)
        self.register_buffer("offset", torch.zeros(()) if spec.double else None, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.packed.device

    @property
    def numbers(self) -> int:
        """Weights in it."""
        return self.rows * self.columns

    @torch.no_grad()
    def dense(self) -> Tensor:
        """``W`` as it computes, in ``dtype``; of one that is sharded all ranks ask for it together."""
        packed, scales = _whole(self.packed), _whole(self.scales)
        if packed.dtype != torch.uint8:
            raise RuntimeError("this version of torch.distributed.fsdp casts integers; use torch 2.13")
        if self.spec.double:
            second = functions().QuantState(
                absmax=self.second, code=_eight_bit(scales.device), blocksize=SCALES_BLOCK, dtype=torch.float32
            )
            nested = {"absmax": scales.reshape(-1), "offset": self.offset, "state2": second}
        else:
            nested = {"absmax": scales.view(torch.float32).reshape(-1)}
        state = functions().QuantState(
            **nested,
            shape=torch.Size((self.rows, self.columns)),
            blocksize=BLOCK,
            quant_type=self.spec.values,
            dtype=self.dtype,
        )
        unpacked: Tensor = functions().dequantize_4bit(packed.reshape(-1, 1), state)
        return unpacked

    def extra_repr(self) -> str:
        """What ``print(model)`` says of it."""
        return f"{self.rows}, {self.columns}, {self.spec}"


def multiply(x: Tensor, weight: Tensor | QuantizedMatrix, bias: Tensor | None = None) -> Tensor:
    """``W x + b``, ``[..., in]`` -> ``[..., out]``; of a W in 4 bit nothing dense is kept for the backward pass."""
    if not isinstance(weight, QuantizedMatrix):
        return F.linear(x, weight, bias)
    product: Tensor = _Product.apply(x, weight)
    return product if bias is None else product + bias


def dense(weight: Tensor | QuantizedMatrix) -> Tensor:
    """The matrix itself, out of 4 bit where it is kept so."""
    return weight.dense() if isinstance(weight, QuantizedMatrix) else weight


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: QuantizedMatrix) -> Tensor:
        # The module, not its parameters: FSDP takes their memory away and gives it back before the backward pass.
        ctx.matrix = matrix
        return F.linear(x, matrix.dense())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream @ ctx.matrix.dense(), None


def _bytes(rows: int, columns: int, device: torch.device) -> nn.Parameter:
    return nn.Parameter(torch.empty(rows, columns, dtype=torch.uint8, device=device), requires_grad=False)


def _whole(parameter: Tensor) -> Tensor:
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


@cache
def _eight_bit(device: torch.device) -> Tensor:
    """The 256 values of scales in 8 bit."""
    values: Tensor = functions().create_dynamic_map().to(device)
    return values
