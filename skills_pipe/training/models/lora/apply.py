"""Which linear layers of a model get an adapter."""

from __future__ import annotations

import torch
from torch import nn

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.models.lora.linear import LoraLinear
from skills_pipe.training.models.quantized import is_packed


def add_adapters(model: nn.Module, spec: AdapterSpec) -> tuple[str, ...]:
    """Give the linear layers that ``spec`` chooses an adapter, in place, and freeze everything else.

    A model that has these very adapters keeps them. The values of new ones are not set:
    :func:`skills_pipe.training.models.lora.initial.initialise` does that, once the weights are there.

    Returns:
        the full names of the layers.

    Raises:
        ConfigError: a pattern matches no layer, or the model has other adapters.
    """
    present = adapted_modules(model)
    chosen = spec.choose(linear_modules(model))
    if present:
        _check_same(present, chosen, spec)
        return chosen
    model.requires_grad_(False)
    for name in chosen:
        parent, _, leaf = name.rpartition(".")
        base = model.get_submodule(name)
        if not isinstance(base, nn.Linear):
            raise RuntimeError(f"{name} is no linear layer")
        setattr(model.get_submodule(parent), leaf, LoraLinear(base, spec))
    return chosen


def freeze_but_adapters(model: nn.Module, spec: AdapterSpec, dtype: torch.dtype) -> bool:
    """:func:`add_adapters`, and what is frozen is kept in ``dtype``, in which it computes: no update needs more.

    Returns:
        whether the adapters are new, so that they need their first values.
    """
    new = not adapted_modules(model)
    add_adapters(model, spec)
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return new


def adapted_modules(model: nn.Module) -> dict[str, LoraLinear]:
    """The layers of a model that have an adapter, by their full names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def linear_modules(model: nn.Module) -> tuple[str, ...]:
    """The full names of the linear layers of a model, with adapters or without; not those of adapters."""
    return tuple(name for name, module in model.named_modules() if _is_linear(module, name, model))


def base_name(name: str) -> str | None:
    """What a parameter is called in the base model; None for one of an adapter, or of a matrix in 4 bit."""
    return None if ".lora_" in name or is_packed(name) else name


def _is_linear(module: nn.Module, name: str, model: nn.Module) -> bool:
    """The two matrices of an adapter are linear layers as well."""
    if not isinstance(module, nn.Linear):
        return False
    parent = name.rpartition(".")[0]
    return not parent or not isinstance(model.get_submodule(parent), LoraLinear)


def _check_same(present: dict[str, LoraLinear], chosen: tuple[str, ...], spec: AdapterSpec) -> None:
    if tuple(present) != chosen or any(module.spec != spec for module in present.values()):
        raise ConfigError(
            "the model has adapters of another kind already", where=spec.key, fix="load the base model again"
        )
