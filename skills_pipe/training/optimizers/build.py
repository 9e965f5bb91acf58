"""Optimizer and learning rate schedule as the configuration names them."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LRScheduler, SequentialLR

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import objects
from skills_pipe.training.config.objects import LENGTH, RATE, REST
from skills_pipe.training.config.schema.policy import ObjectConfig, SchedulerConfig
from skills_pipe.training.optimizers.joint import JointOptimizer
from skills_pipe.training.optimizers.mesh import MeshOptimizer, meshes_of

_OPTIMIZER = "policy.optimizer"
_SCHEDULER = "policy.scheduler"
_FUSED_SHARDED = (torch.optim.Adam, AdamW)
"""Whose fused kernels know how tensors are sharded."""
_WHOLE_ONLY = (torch.optim.Adafactor, torch.optim.Rprop)
"""That do what torch knows for whole tensors only."""
_SPARSE_ONLY = (torch.optim.SparseAdam,)
"""That take gradients which training does not make."""


def build_optimizer(
    parameters: Iterable[torch.nn.Parameter],
    config: ObjectConfig,
    *,
    outer: Collection[torch.nn.Parameter] = (),
) -> Optimizer:
    """The optimizer ``config`` names, over the parameters that are trained.

    An optimizer that has a fused kernel for these parameters uses it, unless ``foreach`` or ``fused`` is set.
    ``torch.optim.Muon`` gets the matrices inside of the layers, for which it is made, and AdamW the rest (Jordan et
    al. 2024, "Muon: An optimizer for hidden layers in neural networks").

    Args:
        parameters: of the model; those that are not trained are left out.
        config: import path and arguments; an ``lr`` of None is not passed on.
        outer: parameters of two dimensions that are no matrices inside of the layers.

    Raises:
        ConfigError: the class cannot be imported, does not take these arguments, or needs more than gradients.
    """
    factory = _import(config.name, _OPTIMIZER)
    if config.kwargs.get(RATE, 0) is None:  # at the class's own, whatever it calls it
        config = replace(config, kwargs={key: value for key, value in config.kwargs.items() if key != RATE})
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if factory is Muon:
        return _muon(trained, config, outer)
    if factory in _SPARSE_ONLY:
        raise ConfigError(
            f"{config.name} takes sparse gradients only, and those of language models are dense",
            where=f"{_OPTIMIZER}.name",
            fix="choose another, such as torch.optim.AdamW",
        )
    if factory in _WHOLE_ONLY and any(isinstance(parameter, DTensor) for parameter in trained):
        raise ConfigError(
            f"{config.name} cannot update weights that are sharded over ranks",
            where=f"{_OPTIMIZER}.name",
            fix="choose another, such as torch.optim.AdamW, or train in one process",
        )
    kwargs = _fused(factory, _check_arguments(factory, config, _OPTIMIZER), trained)
    return _over_meshes(_stepped_alone(_construct(factory, _OPTIMIZER, trained, **kwargs), _OPTIMIZER), trained)


def build_scheduler(
    optimizer: Optimizer, config: SchedulerConfig | None, *, total_steps: int | None = None
) -> LRScheduler | None:
    """The schedule of the learning rate, stepped once per optimizer step; None for a constant rate.

    Several parts follow each other at their milestones. A part that has to know the length of the training
    (``num_training_steps``) and is not told gets ``total_steps``.

    Raises:
        ConfigError: a class cannot be imported, does not take these arguments, or milestones and parts do not fit.
    """
    if config is None:
        return None
    parts = []
    for part in config.parts:
        factory = _import(part.name, _SCHEDULER)
        kwargs = _check_arguments(factory, part, _SCHEDULER)
        if total_steps is not None and LENGTH in inspect.signature(factory).parameters and kwargs.get(LENGTH) is None:
            kwargs[LENGTH] = total_steps
        parts.append(_stepped_alone(_construct(factory, _SCHEDULER, optimizer, **kwargs), _SCHEDULER))
    if len(parts) == 1:
        return parts[0]
    return _construct(SequentialLR, _SCHEDULER, optimizer, parts, list(config.milestones))


def outer_matrices(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Parameters of two dimensions that are no matrices inside of layers.

    Embeddings, the output layer, and the biases of experts, which are a stack of vectors.
    """
    embeddings = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    output = model.get_output_embeddings()
    biases = [each for name, each in model.named_parameters() if name.endswith("bias") and each.ndim > 1]
    return [*embeddings, *([output.weight] if output is not None else []), *biases]


def _muon(
    trained: list[torch.nn.Parameter], config: ObjectConfig, outer: Collection[torch.nn.Parameter]
) -> JointOptimizer:
    """Muon and AdamW side by side.

    An argument goes to whichever takes it, ``lr`` and ``weight_decay`` to both, ``eps`` to AdamW; what ``adamw`` holds
    is for AdamW alone.
    """
    own = config.kwargs.get(REST, {})
    muon_names, adamw_names = inspect.signature(Muon).parameters, inspect.signature(AdamW).parameters
    plain = {key: value for key, value in config.kwargs.items() if key != REST}
    for key, known in [*((key, {*muon_names, *adamw_names}) for key in plain), *((key, {*adamw_names}) for key in own)]:
        if key not in known:
            raise objects.no_argument_of_both(key, known, _OPTIMIZER)
    hidden = [one for one in trained if one.ndim == 2 and not any(one is other for other in outer)]
    rest = [one for one in trained if not any(one is other for other in hidden)]
    for_muon = {key: value for key, value in plain.items() if key in muon_names and key != "eps"}
    for_adamw = {key: value for key, value in plain.items() if key in adamw_names} | own
    parts = []
    if hidden:
        parts.append(_over_meshes(_construct(Muon, _OPTIMIZER, hidden, **_resolve(for_muon)), hidden))
    if rest:
        kwargs = _fused(AdamW, _resolve(for_adamw), rest)
        parts.append(_over_meshes(_construct(AdamW, _OPTIMIZER, rest, **kwargs), rest))
    return JointOptimizer(parts)


def _fused(
    factory: Callable[..., Any], kwargs: dict[str, Any], trained: Collection[torch.nn.Parameter]
) -> dict[str, Any]:
    """With the fused kernel, where there is one for these parameters and nothing else was chosen."""
    sharded = any(isinstance(parameter, DTensor) for parameter in trained)
    has_one = factory in _FUSED_SHARDED if sharded else "fused" in inspect.signature(factory).parameters
    return kwargs | ({"fused": True} if has_one and not {"foreach", "fused"} & kwargs.keys() else {})


def _over_meshes(optimizer: Optimizer, parameters: list[torch.nn.Parameter]) -> Optimizer:
    return MeshOptimizer(optimizer) if len(meshes_of(parameters)) > 1 else optimizer


def _import(path: str, where: str) -> Callable[..., Any]:
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        package = module_name.partition(".")[0]
        if error.name != package:
            raise objects.no_module(path, where) from error
        raise ConfigError(
            f"no module {module_name!r} to import {path!r} from: {package} is not installed",
            where=f"{where}.name",
            fix=f"pip install {package}, or give another import path",
        ) from error
    except (ImportError, ValueError) as error:
        raise objects.no_module(path, where) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise objects.no_class(path, dir(module), where)
    return factory


def _check_arguments(factory: Callable[..., Any], config: ObjectConfig, where: str) -> dict[str, Any]:
    """The keyword arguments with dtypes resolved; unknown ones are an error."""
    parameters = inspect.signature(factory).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for key in config.kwargs:
        if key not in parameters and not takes_any:
            raise objects.no_argument(config.name, key, parameters, where)
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
    except (ArithmeticError, TypeError, ValueError, RuntimeError) as error:
        about_rate = RATE in kwargs and re.search(rf"\b{RATE}\b", str(error))
        fix = f"set ++{where}.kwargs.{RATE}=null if it finds its rate itself" if about_rate else None
        given = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
        what = f"{factory.__name__} does not take these arguments{f' ({given})' if given else ''}: {error}"
        raise ConfigError(what, where=where, fix=fix) from error


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
