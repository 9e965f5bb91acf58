"""Which linear layers of a model are kept in 4 bit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skills_pipe.training.config.quantization import QuantizationSpec, is_quantized, uneven
from skills_pipe.training.models.quantized.matrix import QuantizedMatrix, multiply


class QuantizedLinear(nn.Linear):
    """``y = W x + b`` with W in 4 bit: ``weight`` is a :class:`QuantizedMatrix`, whose values are not set.

    Args:
        base: the layer that this one stands for; its bias is taken over.
        spec: how W is kept.
        dtype: in which it computes.
    """

    def __init__(self, base: nn.Linear, spec: QuantizationSpec, dtype: torch.dtype) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        del self.weight
        self.weight = QuantizedMatrix(self.out_features, self.in_features, spec, dtype, base.weight.device)
        self.bias = base.bias
        self.requires_grad_(False)
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` -> ``[..., out]``."""
        return multiply(x, self.weight, self.bias)


def quantize_layers(model: nn.Module, spec: QuantizationSpec, dtype: torch.dtype) -> None:
    """Put linear layers in 4 bit in the place of those of a model without adapters; their values are not set.

    Embeddings, norms and the output layer stay.

    Raises:
        ConfigError: rows of some layer are no whole blocks.
    """
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and is_quantized(name) and not isinstance(module, QuantizedLinear)
    }
    problems = uneven((name, (module.in_features, module.out_features)) for name, module in found.items())
    if problems:
        raise problems[0]
    for name, module in found.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, QuantizedLinear(module, spec, dtype))


def quantized_matrices(model: nn.Module) -> dict[str, QuantizedMatrix]:
    """The matrices of a model that are in 4 bit, by the names of the weights that they stand for."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantizedMatrix)}


def parameter_count(model: nn.Module) -> int:
    """Numbers that a model has, those in 4 bit counted as what they stand for."""
    plain = sum(parameter.numel() for name, parameter in model.named_parameters() if not is_packed(name))
    return plain + sum(matrix.numbers for matrix in quantized_matrices(model).values())


def is_packed(name: str) -> bool:
    """Whether a parameter of this name is a part of a matrix in 4 bit."""
    return name.endswith((".weight.packed", ".weight.scales"))
