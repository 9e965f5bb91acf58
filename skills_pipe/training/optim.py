"""Optimizer and learning rate schedule as the configuration names them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, SequentialLR

from skills_pipe.errors import ConfigError, did_you_mean
from skills_pipe.training.config.schema.policy import ObjectConfig, SchedulerConfig

_OPTIMIZER = "policy.optimizer"
_SCHEDULER = "policy.scheduler"


def build_optimizer(parameters: Iterable[torch.nn.Parameter], config: ObjectConfig) -> Optimizer:
    """The optimizer ``config`` names, over the parameters that are trained.

    An optimizer that has a fused kernel uses it, unless ``foreach`` or ``fused`` is set.

    Raises:
        ConfigError: the class cannot be imported, does not take these arguments, or needs more than gradients.
    """
    factory = _import(config.name, _OPTIMIZER)
    kwargs = _check_arguments(factory, config, _OPTIMIZER)
    if "fused" in inspect.signature(factory).parameters and not {"foreach", "fused"} & kwargs.keys():
        kwargs["fused"] = True
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return _stepped_alone(_construct(factory, _OPTIMIZER, trained, **kwargs), _OPTIMIZER)


def build_scheduler(optimizer: Optimizer, config: SchedulerConfig | None) -> LRScheduler | None:
    """The schedule of the learning rate, stepped once per optimizer step; None for a constant rate.

    Several parts follow each other at their milestones.

    Raises:
        ConfigError: a class cannot be imported, does not take these arguments, or milestones and parts do not fit.
    """
    if config is None:
        return None
    parts = []
    for part in config.parts:
        factory = _import(part.name, _SCHEDULER)
        built = _construct(factory, _SCHEDULER, optimizer, **_check_arguments(factory, part, _SCHEDULER))
        parts.append(_stepped_alone(built, _SCHEDULER))
    if len(parts) == 1:
        return parts[0]
    return _construct(SequentialLR, _SCHEDULER, optimizer, parts, list(config.milestones))


def _import(path: str, where: str) -> Callable[..., Any]:
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"no module {module_name!r} to import {path!r} from", where=f"{where}.name", fix="give an import path"
        ) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        fix = did_you_mean(name, dir(module)) or "give the import path of a class"
        raise ConfigError(f"no class {name!r} in {module_name}", where=f"{where}.name", fix=fix)
    return factory


def _check_arguments(factory: Callable[..., Any], config: ObjectConfig, where: str) -> dict[str, Any]:
    """The keyword arguments with dtypes resolved; unknown ones are an error."""
    parameters = inspect.signature(factory).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for key in config.kwargs:
        if key not in parameters and not takes_any:
            raise ConfigError(
                f"{config.name} has no argument {key!r}", where=f"{where}.kwargs", fix=did_you_mean(key, parameters)
            )
    return {key: _resolve(value) for key, value in config.kwargs.items()}


def _resolve(value: Any) -> Any:
    """``"torch.bfloat16"`` is the dtype; lists and mappings are looked into."""
    if isinstance(value, str) and value.startswith("torch."):
        resolved = getattr(torch, value.removeprefix("torch."), None)
        return resolved if isinstance(resolved, torch.dtype) else value
    if isinstance(value, Mapping):
        return {key: _resolve(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_resolve(entry) for entry in value]
    return value


def _construct(factory: Callable[..., Any], where: str, *args: Any, **kwargs: Any) -> Any:
    try:
        return factory(*args, **kwargs)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{factory.__name__} does not take these arguments: {error}", where=where) from error


def _stepped_alone(built: Any, where: str) -> Any:
    """``built``, unless its ``step`` asks for what the loop does not have: a closure, a metric."""
    needed = [
        name
        for name, parameter in inspect.signature(built.step).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    if needed:
        raise ConfigError(
            f"{type(built).__name__} needs {' and '.join(needed)} at each step, which training does not give it",
            where=f"{where}.name",
            fix="choose one that steps by itself",
        )
    return built
