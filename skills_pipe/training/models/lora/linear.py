"""A linear layer with a low-rank adapter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.models.lora.lengths import RowLengths
from skills_pipe.training.models.quantized import dense, multiply


@dataclass(frozen=True, kw_only=True, eq=False)
class Matrices:
    """What a layer computes with: weight ``[out, in]``, bias ``[out]`` or None, ``low`` (A) ``[dim, in]`` and ``high``
    (B) ``[out, dim]``; where ranks share the layer, this rank's parts of them."""

    weight: Tensor
    bias: Tensor | None
    low: Tensor
    high: Tensor


class LoraLinear(nn.Linear):
    """``y = W x + b + scale * B(A x)``, where only A and B learn (LoRA: Hu et al. 2021, arXiv:2106.09685).

    With DoRA each row of ``W + scale * B A`` is scaled to a length of its own, ``lora_magnitude_vector``, which learns
    too; the length it had counts as a constant in the backward pass (Liu et al. 2024, arXiv:2402.09353, section 4.3).

    Weight and bias are those of the layer that this one stands for, under their names; the adapter's are
    called ``lora_A.weight`` ``[dim, in]``, ``lora_B.weight`` ``[out, dim]`` and ``lora_magnitude_vector.weight``
    ``[out]``. They are float32; the matrices compute in the type of the input, the lengths in float32.

    Args:
        base: the layer; its parameters are frozen.
        spec: what kind of adapter.
    """

    def __init__(self, base: nn.Linear, spec: AdapterSpec) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        del self.weight  # in whose place there may be a matrix in 4 bit
        self.weight, self.bias = base.weight, base.bias
        self.requires_grad_(False)
        device = base.weight.device
        self.lora_A = _matrix(self.in_features, spec.dim, device)
        self.lora_B = _matrix(spec.dim, self.out_features, device)
        self.lora_magnitude_vector = RowLengths(self.out_features, device) if spec.decomposed else None
        self.spec = spec
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` -> ``[..., out]``."""
        by = self._matrices()
        if self.lora_magnitude_vector is not None:
            return self._decomposed(x, by, self.lora_magnitude_vector)
        whole = multiply(x, by.weight, by.bias)
        if self._drops_after:
            return whole + self._dropped(self._update(x, by))
        # One pass over the output less than a product and a sum.
        low = self._low(self._dropped(x), by).reshape(-1, self.spec.dim)
        added = torch.addmm(whole.view(-1, whole.shape[-1]), low, by.high.to(x.dtype).T)
        return self._over_inputs(added.view_as(whole))

    def extra_repr(self) -> str:
        """What ``print(model)`` says of it."""
        return f"{super().extra_repr()}, dim={self.spec.dim}, scale={self.spec.scale:g}"

    @property
    def _drops_after(self) -> bool:
        return self.training and self.spec.dropout > 0 and self.spec.dropout_position == "post"

    def _matrices(self) -> Matrices:
        return Matrices(weight=self.weight, bias=self.bias, low=self.lora_A.weight, high=self.lora_B.weight)

    def _over_inputs(self, outputs: Tensor) -> Tensor:
        """Where ranks have some inputs each: the sum of what they make of them."""
        return outputs

    def _squares_over_inputs(self, squares: Tensor) -> Tensor:
        """The same of a sum over all inputs that has no gradient."""
        return squares

    def _decomposed(self, x: Tensor, by: Matrices, lengths: RowLengths) -> Tensor:
        # float32, and with it all that is multiplied by it: rounded once, at the end.
        factor: Tensor = lengths(self._row_lengths(by))
        whole = multiply(x, by.weight)
        if self._drops_after:
            result = factor * (whole + self._dropped(self._update(x, by)))
        elif self.training and self.spec.dropout > 0:
            # What dropout leaves of the input enters both parts of the change that the adapter makes.
            dropped = self._dropped(x)
            result = whole + (factor - 1) * multiply(dropped, by.weight) + factor * self._update(dropped, by)
        else:
            result = factor * self._over_inputs(whole + self._update(x, by))
        return (result if by.bias is None else result + by.bias).to(x.dtype)

    def _update(self, x: Tensor, by: Matrices) -> Tensor:
        return F.linear(self._low(x, by), by.high.to(x.dtype))

    def _low(self, x: Tensor, by: Matrices) -> Tensor:
        # Scaled here, where a token has the fewest numbers.
        return F.linear(x, by.low.to(x.dtype)) * self.spec.scale

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.spec.dropout, self.training) if self.spec.dropout > 0 else x

    @torch.no_grad()
    def _row_lengths(self, by: Matrices) -> Tensor:
        """L2 norms of the rows of ``W + scale * B A``, at least float32 ``[out]``, without making that matrix.

        ``|w + s b A|^2 = |w|^2 + 2 s (w A^T) . b + s^2 (b A A^T) . b`` for a row w of W and the same row b of B.
        """
        scale, weight = self.spec.scale, dense(by.weight)
        dtype = torch.promote_types(weight.dtype, torch.float32)
        a, b = by.low.to(dtype), by.high.to(dtype)
        own = torch.linalg.vector_norm(weight, dim=1, dtype=dtype).square()
        mixed = ((weight @ a.to(weight.dtype).T).to(dtype) * b).sum(dim=1)
        added = ((b @ (a @ a.T)) * b).sum(dim=1)
        squares = self._squares_over_inputs(own + 2 * scale * mixed + scale**2 * added)
        lengths: Tensor = squares.clamp_min(0.0).sqrt()
        return lengths


def _matrix(inputs: int, outputs: int, device: torch.device) -> nn.Linear:
    """Without values: drawing those that a linear layer starts with would change all random numbers after them."""
    made = nn.Linear(inputs, outputs, bias=False, device="meta", dtype=torch.float32)
    return made.to_empty(device=device) if device.type != "meta" else made
