"""Low-rank adapters: the layer, which layers of a model get one, their first values, and merging them.

::

    modules = add_adapters(model, spec)
    initialise(model, spec, seed=42)
"""

from skills_pipe.training.models.lora.apply import (
    adapted_modules,
    add_adapters,
    base_name,
    freeze_but_adapters,
    linear_modules,
)
from skills_pipe.training.models.lora.initial import initialise
from skills_pipe.training.models.lora.linear import LoraLinear

__all__ = [
    "LoraLinear",
    "adapted_modules",
    "add_adapters",
    "base_name",
    "freeze_but_adapters",
    "initialise",
    "linear_modules",
]
