"""A training with everything that a checkpoint can hold, saved in the background; cases for the ranks of the tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.checkpoint.manager import CheckpointManager
from skills_pipe.training.config import ObjectConfig
from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.data.batches import split_batch
from skills_pipe.training.distributed import World
from tests.training.backends.layouts import ROWS, settings
from tests.training.backends.scenario import BATCH, dataset, whole
from tests.training.checkpoint.runs import RUN, info_at, position_at
from tests.training.tiny import tiny_model

ADAPTERS = AdapterSpec(dim=4, alpha=8.0, targets=("q_proj", "down_proj"))
MUON = ObjectConfig(name="torch.optim.Muon", kwargs={"lr": 1e-2})
ADAMW = ObjectConfig(name="torch.optim.AdamW", kwargs={"lr": 1e-2})


def backend_of(world: World, *, layout: Layout | None, adapters: bool, muon: bool, seed: int) -> FsdpBackend:
    model = tiny_model("qwen3", seed=seed, num_key_value_heads=4, tie_word_embeddings=True)
    wanted = settings(
        optimizer=MUON if muon else ADAMW,
        layout=layout,
        average_decay=0.5,
        adapters=ADAPTERS if adapters else None,
        seed=seed,
    )
    return FsdpBackend(model, wanted, world)


def train(backend: FsdpBackend, world: World, layout: Layout | None, steps: range) -> None:
    here, data = replace(world, same_rows=layout.same_rows if layout else 1), dataset()
    for step in steps:
        batch = split_batch(data, range(step * BATCH, (step + 1) * BATCH), ROWS, here.data_rank, here.data_size)
        backend.train_step(batch.microbatches, targets=batch.global_weight)


def state_of(backend: FsdpBackend) -> dict[str, torch.Tensor]:
    """Weights, their average and every tensor of the optimizer, whole."""
    trainee = backend.trainee
    assert trainee.average is not None
    named = {name: one for name, one in trainee.model.named_parameters() if one.requires_grad}
    found = {name: whole(parameter.detach()).clone() for name, parameter in named.items()}
    for name, parameter in named.items():
        for moment, value in trainee.optimizer.state[parameter].items():
            found[f"{moment} of {name}"] = whole(value).clone()
    for name, value in trainee.average.state().items():
        found[f"average of {name}"] = whole(value.detach()).clone()
    return found


def saved(world: World, *, folder: str, layout: Layout, adapters: bool, muon: bool) -> dict[str, Any]:
    """The state after two steps, of which a save was begun; by its end the training is a step further."""
    backend = backend_of(world, layout=layout, adapters=adapters, muon=muon, seed=0)
    train(backend, world, layout, range(2))
    manager = CheckpointManager(Path(folder), run=RUN, in_background=True)
    manager.start()
    state = state_of(backend)
    manager.save(backend.trainee, info_at(2), position_at(2))
    train(backend, world, layout, range(2, 3))
    manager.close()
    return state
