"""How much memory and time training takes: arithmetic on a model's ``config.json``, without torch.

It follows the fsdp backend (:mod:`skills_pipe.training.backends.fsdp`): fp32 weights, gradients and optimizer state,
all sharded, a forward and backward pass in ``policy.precision``, the loss chunk by chunk. Bytes of weights, gradients
and optimizer are exact; activations are what autograd keeps, without what kernels need for a moment.
"""

from __future__ import annotations

from skills_pipe.training.config.estimate.activations import Conditions, Recomputed, activation_bytes
from skills_pipe.training.config.estimate.adapted import adapter_parameters
from skills_pipe.training.config.estimate.kinds import FAMILIES
from skills_pipe.training.config.estimate.layers import Experts
from skills_pipe.training.config.estimate.memory import GIB, MemoryEstimate, estimate_memory
from skills_pipe.training.config.estimate.operations import operations_per_step, seconds_per_step
from skills_pipe.training.config.estimate.shape import ModelShape

__all__ = [
    "FAMILIES",
    "GIB",
    "Conditions",
    "Experts",
    "MemoryEstimate",
    "ModelShape",
    "Recomputed",
    "activation_bytes",
    "adapter_parameters",
    "estimate_memory",
    "operations_per_step",
    "seconds_per_step",
]
