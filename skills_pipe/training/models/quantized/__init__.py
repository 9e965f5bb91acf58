"""Frozen linear layers whose weights are kept in 4 bit: the matrix, which layers get one, and reading it from files.

::

    quantize_layers(model, spec, torch.bfloat16)
    materialise(model, device)
    fill_quantized(model, weights)

bitsandbytes packs and unpacks the numbers; what is packed is cut into rows, so that FSDP shards it as any weight.
"""

from skills_pipe.training.models.quantized.layers import (
    QuantizedLinear,
    is_packed,
    parameter_count,
    quantize_layers,
    quantized_matrices,
)
from skills_pipe.training.models.quantized.load import fill_quantized
from skills_pipe.training.models.quantized.matrix import QuantizedMatrix, dense, multiply

__all__ = [
    "QuantizedLinear",
    "QuantizedMatrix",
    "dense",
    "fill_quantized",
    "is_packed",
    "multiply",
    "parameter_count",
    "quantize_layers",
    "quantized_matrices",
]
