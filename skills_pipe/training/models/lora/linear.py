"""A linear layer with a low-rank adapter."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.models.lora.lengths import RowLengths
from skills_pipe.training.models.quantized import dense, multiply


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
        if self.lora_magnitude_vector is not None:
            return self._decomposed(x, self.lora_magnitude_vector)
        whole = multiply(x, self.weight, self.bias)
        if self._drops_after:
            return whole + self._dropped(self._update(x))
        # One pass over the output less than a product and a sum.
        low = self._low(self._dropped(x)).reshape(-1, self.spec.dim)
        return torch.addmm(whole.view(-1, self.out_features), low, self.lora_B.weight.to(x.dtype).T).view_as(whole)

    def extra_repr(self) -> str:
        """What ``print(model)`` says of it."""
        return f"{super().extra_repr()}, dim={self.spec.dim}, scale={self.spec.scale:g}"

    @property
    def _drops_after(self) -> bool:
        return self.training and self.spec.dropout > 0 and self.spec.dropout_position == "post"

    def _decomposed(self, x: Tensor, lengths: RowLengths) -> Tensor:
        # float32, and with it all that is multiplied by it: rounded once, at the end.
        factor: Tensor = lengths(self._row_lengths())
        whole = multiply(x, self.weight)
        if self._drops_after:
            result = factor * (whole + self._dropped(self._update(x)))
        elif self.training and self.spec.dropout > 0:
            # What dropout leaves of the input enters both parts of the change that the adapter makes.
            dropped = self._dropped(x)
            result = whole + (factor - 1) * multiply(dropped, self.weight) + factor * self._update(dropped)
        else:
            result = factor * (whole + self._update(x))
        return (result if self.bias is None else result + self.bias).to(x.dtype)

    def _update(self, x: Tensor) -> Tensor:
        return F.linear(self._low(x), self.lora_B.weight.to(x.dtype))

    def _low(self, x: Tensor) -> Tensor:
        # Scaled here, where a token has the fewest numbers.
        return F.linear(x, self.lora_A.weight.to(x.dtype)) * self.spec.scale

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.spec.dropout, self.training) if self.spec.dropout > 0 else x

    @torch.no_grad()
    def _row_lengths(self) -> Tensor:
        """L2 norms of the rows of ``W + scale * B A``, float32 ``[out]``, without making that matrix.

        ``|w + s b A|^2 = |w|^2 + 2 s (w A^T) . b + s^2 (b A A^T) . b`` for a row w of W and the same row b of B.
        """
        scale, a, b = self.spec.scale, self.lora_A.weight.float(), self.lora_B.weight.float()
        weight = dense(self.weight)
        own = torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32).square()
        mixed = ((weight @ a.to(weight.dtype).T).float() * b).sum(dim=1)
        added = ((b @ (a @ a.T)) * b).sum(dim=1)
        lengths: Tensor = (own + 2 * scale * mixed + scale**2 * added).clamp_min(0.0).sqrt()
        return lengths


def _matrix(inputs: int, outputs: int, device: torch.device) -> nn.Linear:
    """Without values: drawing those that a linear layer starts with would change all random numbers after them."""
    made = nn.Linear(inputs, outputs, bias=False, device="meta", dtype=torch.float32)
    return made.to_empty(device=device) if device.type != "meta" else made
