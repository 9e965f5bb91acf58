"""The state of a training in one file, for a training in one process."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from skills_pipe.artifacts.atomic import publish_file
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint import rng, tensors
from skills_pipe.training.checkpoint.fingerprint import model_fingerprint
from skills_pipe.training.checkpoint.state import DataPosition, ResumePoint, TrainingInfo
from skills_pipe.training.config.adapters import adapter_spec
from skills_pipe.training.optimizers.ema import WeightAverage
from skills_pipe.training.run import Run

_FORMAT = 1


def save(path: Path, run: Run, point: ResumePoint) -> None:
    """Write the state of ``run``, which stands at ``point``; the file appears whole or not at all.

    Raises:
        CheckpointError: it cannot be written.
    """
    trainee = run.backend.trainee
    state = {
        "format": _FORMAT,
        "run": _identity(run),
        "info": point.info.to_json(),
        "model": tensors.model_state(trainee.model),
        "optimizer": tensors.optimizer_state(trainee),
        "scheduler": None if trainee.scheduler is None else trainee.scheduler.state_dict(),
        "average": None if trainee.average is None else trainee.average.state(),
        "rng": rng.state(),
    }
    try:
        with publish_file(path) as temporary:
            torch.save(state, temporary)
    except OSError as error:
        raise CheckpointError(f"the checkpoint cannot be written: {error.strerror}", where=str(path)) from error


def load(path: Path, run: Run) -> ResumePoint:
    """Bring the model, the optimizer and the random numbers of ``run`` into the state of a file.

    Raises:
        CheckpointError: the file is missing, damaged, or of another model, other data or another batch size.
    """
    state = _read(path)
    _compare(state["run"], _identity(run), path)
    trainee = run.backend.trainee
    tensors.set_model_state(trainee.model, state["model"])
    tensors.set_optimizer_state(trainee, state["optimizer"])
    if trainee.scheduler is not None and state["scheduler"] is not None:
        trainee.scheduler.load_state_dict(state["scheduler"])
    if trainee.average is not None:
        _set_average(trainee.average, state.get("average"))
    rng.restore(state["rng"])
    info = TrainingInfo.from_json(state["info"])
    position = DataPosition(
        consumed_samples=info.consumed_samples, seed=run.sampler.seed, fingerprint=run.data_fingerprint
    )
    return ResumePoint(info=info, position=position)


def _set_average(average: WeightAverage, kept: Mapping[str, torch.Tensor] | None) -> None:
    """Restore an average in place; without one it starts from the weights, which are those of the file."""
    if kept is None:
        average.restart()
        return
    with torch.no_grad():
        for name, tensor in average.state().items():
            tensor.copy_(kept[name])


def _identity(run: Run) -> dict[str, Any]:
    """What must be the same for a state to mean the same, by the names that the user knows."""
    return {
        "model": model_fingerprint(run.backend.trainee.model.config, ""),
        "training data or order": run.data_fingerprint,
        "seed": run.sampler.seed,
        "batch size": run.sampler.batch_size,
        "optimizer": asdict(run.config.policy.optimizer)["name"] if run.config.policy.optimizer else None,
        "kind of adapters": asdict(spec) if (spec := adapter_spec(run.config.policy)) else None,
        "schedule": run.config.policy.scheduler is not None,
    }


def _read(path: Path) -> Mapping[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError("there is no such checkpoint", where=str(path)) from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            "the checkpoint cannot be read: it is damaged, or no checkpoint", where=str(path)
        ) from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise CheckpointError("the file is no checkpoint of a trainer", where=str(path))
    return state


def _compare(then: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    changed = [name for name in now if then.get(name) != now[name]]
    if changed:
        raise CheckpointError(
            f"the checkpoint is of another {', another '.join(changed)}",
            where=str(path),
            fix="make the trainer with the model, the rows and the configuration of the checkpoint",
        )
