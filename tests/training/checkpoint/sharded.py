"""A model that is split over ranks, saved by some and resumed by others: cases for the ranks of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from skills_pipe.training.checkpoint.state import Trainee
from skills_pipe.training.distributed import World
from tests.training.checkpoint.runs import info_at, new_manager, position_at, train, with_optimizer
from tests.training.tiny import tiny_model


def save(world: World, *, folder: Path, tied: bool = False) -> dict[str, Any]:
    """Three steps, the third one saved; rank 0 gives the gathered state."""
    torch.manual_seed(world.rank)
    trainee = sharded_trainee(seed=0, tied=tied)
    train(trainee, 3)
    manager = new_manager(folder)
    manager.save(trainee, info_at(3), position_at(3))
    manager.close()
    return gathered(trainee)


def load(world: World, *, folder: Path, tied: bool = False) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The warnings of a resume into other weights; rank 0 gives the gathered state."""
    torch.manual_seed(world.rank)
    trainee = sharded_trainee(seed=5, tied=tied)
    manager = new_manager(folder)
    try:
        warnings = manager.resume(trainee).warnings
    finally:
        manager.close()
    return warnings, gathered(trainee)


def sharded_trainee(*, seed: int, tied: bool) -> Trainee:
    model = tiny_model(seed=seed, tie_word_embeddings=tied)
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    return with_optimizer(model)


def gathered(trainee: Trainee) -> dict[str, Any]:
    """Model and optimizer in full on every rank."""
    options = StateDictOptions(full_state_dict=True, flatten_optimizer_state_dict=True)
    model, optimizer = get_state_dict(trainee.model, trainee.optimizer, options=options)
    whole = {"model": model, "optimizer": optimizer}
    # Gathered tensors are on rank 0 only; the others take part in the gathering.
    return whole if dist.get_rank() == 0 else {}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    found = []
    for part in ("model", "optimizer"):
        for name in one[part].keys() | other[part].keys():
            a, b = one[part].get(name), other[part].get(name)
            equal = torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
            if not equal:
                found.append(f"{part}: {name}")
    return found
