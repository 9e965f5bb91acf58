"""How many floating point operations a training step needs, whatever way it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from skills_pipe.training.models.layers import windows_of
from skills_pipe.training.models.quantized import is_packed, quantized_matrices


@dataclass(frozen=True, kw_only=True)
class ModelFlops:
    """What a decoder costs, as PaLM counts it (Chowdhery et al. 2022, appendix B): no recomputation, no masked half.

    A matrix of ``n`` weights costs ``2 n`` operations per token in the forward pass, ``2 n`` for the gradient of its
    input and, if it is trained, ``2 n`` for its own. Attention costs twice ``2 * heads * head_dim`` forward, and twice
    that backward, for each pair of a token and one that it sees. The output layer counts for trained tokens only: the
    loss needs no other logits. Look-ups, norms and activations are left out.

    Attributes:
        matrices: weights inside of the layers that one token meets, of a mixture those of its experts.
        trained: those of them that are trained.
        output: weights of the output layer.
        output_trained: whether it is trained.
        heads: ``heads * head_dim`` of a layer.
        windows: of each layer how many tokens back it sees; None: all.
    """

    matrices: float
    trained: float
    output: int
    output_trained: bool
    heads: int
    windows: tuple[int | None, ...]

    @classmethod
    def of(cls, model: PreTrainedModel) -> ModelFlops:
        """Counted on a model, plain or sharded."""
        config = model.config.get_text_config()
        embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        output = model.get_output_embeddings().weight
        experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None) or 1
        chosen = getattr(config, "num_experts_per_tok", None) or experts
        matrices = trained = 0.0
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2 or id(parameter) in embeddings or parameter is output or is_packed(name):
                continue
            count = parameter.numel() * (chosen / experts if ".experts." in name else 1)
            matrices += count
            trained += count * parameter.requires_grad
        matrices += sum(matrix.numbers for matrix in quantized_matrices(model).values())
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            matrices=matrices,
            trained=trained,
            output=output.numel(),
            output_trained=output.requires_grad,
            heads=config.num_attention_heads * head_dim,
            windows=windows_of(config),
        )

    def of_step(self, lengths: Sequence[int] | NDArray[np.int64], targets: int) -> float:
        """Of a forward and backward pass.

        Args:
            lengths: tokens of each document.
            targets: trained tokens.
        """
        sizes = np.asarray(lengths, dtype=np.float64)
        linear = float(sizes.sum()) * (4 * self.matrices + 2 * self.trained)
        head = targets * self.output * (6 if self.output_trained else 4)
        pairs = sum(_pairs(sizes, window) for window in self.windows)
        return linear + head + 12 * self.heads * pairs


def _pairs(lengths: NDArray[np.float64], window: int | None) -> float:
    """Pairs of a token and one that it sees: half of the square, and beyond a window its width for each token."""
    seen = np.minimum(lengths, window) if window else lengths
    return float((seen * lengths - seen * seen / 2).sum())
