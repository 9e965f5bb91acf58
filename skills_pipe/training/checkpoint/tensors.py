"""The model and the optimizer as state dicts for ``torch.distributed.checkpoint``, and back.

The optimizer's state is flattened to parameter names (``state.<name>.exp_avg``), so that it can be read with another
number of ranks or another split into parameter groups.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.failures import disk_failures
from skills_pipe.training.checkpoint.ranks import channel, world_size
from skills_pipe.training.checkpoint.state import Trainee

_OPTIONS = StateDictOptions(flatten_optimizer_state_dict=True)
_SETTINGS = "param_groups."
_WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.")


def write(state: Mapping[str, Any], folder: Path) -> None:
    """Write a state dict from all ranks into ``folder``, flushed to disk.

    Raises:
        CheckpointError: a rank could not write, as when the disk is full.
    """
    writer = _Writer(folder)
    try:
        with _alone_is_meant():
            dcp.save(dict(state), storage_writer=writer, process_group=channel(), no_dist=world_size() == 1)
    except CheckpointException as error:
        raise _cause(error, folder) from error


def read(state: dict[str, Any], folder: Path, *, without: str | None = None) -> None:
    """Fill a state dict in place from ``folder``, whatever number of ranks wrote it.

    Args:
        state: what to fill.
        folder: as :func:`write` left it.
        without: beginning of the names there that nobody wants.

    Raises:
        CheckpointError: names or shapes differ, all of them named.
    """
    reader = dcp.FileSystemReader(folder)
    stored = reader.read_metadata().state_dict_metadata
    wanted = {name: value for name, value in stored.items() if without is None or not name.startswith(without)}
    _compare(state, wanted, folder)
    with _alone_is_meant():
        dcp.load(state, storage_reader=reader, no_dist=not dist.is_initialized())


def model_state(model: torch.nn.Module) -> dict[str, Any]:
    """Parameters and persistent buffers, each tensor once: of tied ones the name that the model defines first.

    Parameters that are not trained, as under adapters, are left out: they are those of the base model.
    """
    state = get_model_state_dict(model, options=_OPTIONS)
    left_out = {*tied_names(model), *_frozen_names(model)}
    return {name: value for name, value in state.items() if name not in left_out}


def load_model_state(model: torch.nn.Module, folder: Path) -> None:
    """Restore the model from ``folder``."""
    state = model_state(model)
    read(state, folder)
    set_model_state(model, state)


def set_model_state(model: torch.nn.Module, state: Mapping[str, Any]) -> None:
    """Restore the model from what :func:`model_state` gave."""
    complete = dict(state) | {alias: state[name] for alias, name in tied_names(model).items() if name in state}
    # Its names have been compared already, and those of frozen parameters are not among them.
    set_model_state_dict(model, complete, options=replace(_OPTIONS, strict=not _frozen_names(model)))


def optimizer_state(trainee: Trainee) -> dict[str, Any]:
    """Moments, step counts and settings of the optimizer by parameter name."""
    return get_optimizer_state_dict(trainee.model, trainee.optimizer, options=_OPTIONS)


def load_optimizer_state(trainee: Trainee, folder: Path, *, keep_settings: bool = False) -> None:
    """Restore the optimizer from ``folder``: its moments and, but with ``keep_settings``, its settings."""
    state = optimizer_state(trainee)
    if keep_settings:
        moments = {name: value for name, value in state.items() if not name.startswith(_SETTINGS)}
        read(moments, folder, without=_SETTINGS)
        state |= moments
    else:
        read(state, folder)
    set_optimizer_state(trainee, state)


def set_optimizer_state(trainee: Trainee, state: dict[str, Any]) -> None:
    """Restore the optimizer from what :func:`optimizer_state` gave."""
    set_optimizer_state_dict(trainee.model, trainee.optimizer, state, options=_OPTIONS)


def tied_names(model: torch.nn.Module) -> dict[str, str]:
    """Second names of tied parameters -> their first names: ``lm_head.weight -> model.embed_tokens.weight``."""
    first: dict[int, str] = {}
    tied = {}
    for wrapped_name, parameter in model.named_parameters(remove_duplicate=False):
        name = _unwrapped(wrapped_name)
        if first.setdefault(id(parameter), name) != name:
            tied[name] = first[id(parameter)]
    return tied


def _frozen_names(model: torch.nn.Module) -> set[str]:
    """Of parameters that are not trained, while others are; none of a model that is only read."""
    learns = {_unwrapped(name): one.requires_grad for name, one in model.named_parameters(remove_duplicate=False)}
    return {name for name, trained in learns.items() if not trained} if any(learns.values()) else set()


def parameters_by_name(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Each parameter once, by the name that checkpoints give it."""
    return {_unwrapped(name): parameter for name, parameter in model.named_parameters()}


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


@contextlib.contextmanager
def _alone_is_meant() -> Iterator[None]:
    """Silence torch's remark that there is no process group."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield


class _Writer(dcp.FileSystemWriter):
    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        # Here, on the rank that failed: an exception loses its cause on its way to the other ranks.
        with disk_failures():
            return super().write_data(plan, planner)


def _compare(state: Mapping[str, Any], stored: Mapping[str, Any], folder: Path) -> None:
    found = [f"{name} is missing" for name in state if name not in stored]
    found += [f"{name} is not in the model" for name in stored if name not in state]
    for name, value in state.items():
        saved = stored.get(name)
        if saved is None:
            continue
        if isinstance(value, torch.Tensor) != isinstance(saved, TensorStorageMetadata):
            found.append(f"{name} is kept in another form")
        elif isinstance(saved, TensorStorageMetadata) and value.shape != saved.size:
            found.append(f"{name} has shape {tuple(saved.size)}, {tuple(value.shape)} expected")
    if found:
        rest = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise CheckpointError(
            f"the checkpoint does not fit the model: {'; '.join(found[:5])}{rest}",
            where=str(folder),
            fix="resume with the model and optimizer of the checkpoint, or choose another checkpointing.checkpoint_dir",
        )


def _cause(error: CheckpointException, folder: Path) -> BaseException:
    """The first rank's own failure: an OSError as a clear line, anything else as it was."""
    number, (failure, _) = min(error.failures.items())
    if isinstance(failure, OSError):
        return CheckpointError(
            f"rank {number} could not write the checkpoint: {failure.strerror or failure}",
            where=str(folder),
            fix="make room or check the quota of the file system; earlier checkpoints are untouched",
        )
    return failure
