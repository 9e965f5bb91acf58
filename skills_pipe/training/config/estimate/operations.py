"""How many floating point operations a step takes; the same count as that of a model that is there.

See :mod:`skills_pipe.training.models.flops`, which says what counts.
"""

from __future__ import annotations

from skills_pipe.training.config.estimate.adapted import adapter_matrices
from skills_pipe.training.config.estimate.shape import ModelShape
from skills_pipe.training.config.schema import PolicyConfig


def operations_per_step(shape: ModelShape, policy: PolicyConfig) -> float:
    """Of one optimizer step whose samples all have the greatest length, and of which all tokens are trained.

    Matrices that are not trained, under adapters that are, have no gradient of their own.
    """
    length = policy.max_total_sequence_length
    adapters = adapter_matrices(shape, policy)
    if adapters is None:
        products = 6 * (shape.matrices + shape.vocabulary * shape.hidden)
    else:
        products = 4 * (shape.matrices + shape.vocabulary * shape.hidden) + 6 * adapters
    pairs = sum(_pairs(length, window) for window in shape.windows or (None,) * shape.layers)
    return policy.train_global_batch_size * (length * products + 12 * shape.queries * pairs)


def seconds_per_step(shape: ModelShape, policy: PolicyConfig, *, flops: float) -> float:
    """Seconds of :func:`operations_per_step` at ``flops`` operations per second."""
    return operations_per_step(shape, policy) / flops


def _pairs(length: int, window: int | None) -> float:
    """Pairs of a token and one that it sees: half of the square, and beyond a window its width for each token."""
    seen = min(length, window) if window else length
    return seen * length - seen * seen / 2
