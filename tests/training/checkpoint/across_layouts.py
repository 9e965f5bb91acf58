"""A training that is saved on one layout of ranks and goes on on another; a case for the ranks of the tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.config import ObjectConfig
from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.config.schema.policy import SchedulerConfig
from skills_pipe.training.data.batches import split_batch
from skills_pipe.training.distributed import World
from skills_pipe.training.models.load import ModelSpec, open_model
from tests.training.backends.layouts import MIXTURES, ROWS, settings
from tests.training.backends.scenario import BATCH, dataset, whole
from tests.training.checkpoint.runs import info_at, new_manager, position_at
from tests.training.tiny import tiny_model

WARMUP = SchedulerConfig(
    parts=(
        ObjectConfig(name="torch.optim.lr_scheduler.LinearLR", kwargs={"total_iters": 4}),
        ObjectConfig(name="torch.optim.lr_scheduler.ConstantLR", kwargs={}),
    ),
    milestones=(3,),
)
"""A schedule that keeps values for each group of parameters, and goes on after the checkpoint."""

ADAMW = ObjectConfig(name="torch.optim.AdamW", kwargs={"lr": 1e-2})

SHAPE = {"vocab_size": 262, "num_key_value_heads": 4, "tie_word_embeddings": True}
"""131 words for each of two ranks: shards of theirs are not of one size."""

SHAPES = {
    "qwen3": SHAPE,
    "phi3": SHAPE,
    "qwen3_moe": MIXTURES["qwen3_moe"] | {"num_experts": 6},
    "gpt_oss": MIXTURES["gpt_oss"],
}
"""By family. Of Qwen3-MoE three experts for each of two ranks: shards of theirs are not of one size either."""


def backend_of(world: World, layout: Layout, *, family: str, seed: int) -> tuple[FsdpBackend, World]:
    model = tiny_model(family, seed=seed, **SHAPES[family])
    backend = FsdpBackend(model, settings(optimizer=ADAMW, scheduler=WARMUP, layout=layout), world)
    return backend, replace(world, same_rows=layout.same_rows)


def train(backend: FsdpBackend, here: World, steps: range) -> list[float]:
    data, losses = dataset(), []
    for step in steps:
        batch = split_batch(data, range(step * BATCH, (step + 1) * BATCH), ROWS, here.data_rank, here.data_size)
        losses.append(backend.train_step(batch.microbatches, targets=batch.global_weight).loss)
    return losses


def state_of(backend: FsdpBackend) -> dict[str, torch.Tensor]:
    """Every weight and every moment, whole; copies, because what a rank holds whole is trained on in place."""
    named = dict(backend.trainee.model.named_parameters())
    found = {name: whole(parameter.detach()).clone() for name, parameter in named.items()}
    for name, parameter in named.items():
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            found[f"{moment} of {name}"] = whole(backend.trainee.optimizer.state[parameter][moment]).clone()
    return found


def saved(world: World, *, layout: Layout, folder: Path, family: str = "qwen3") -> dict[str, Any]:
    """Two steps, saved; what was saved, and the losses of the two steps after it."""
    backend, here = backend_of(world, layout, family=family, seed=0)
    train(backend, here, range(2))
    manager = new_manager(folder)
    manager.save(backend.trainee, info_at(2), position_at(2))
    manager.close()
    state = state_of(backend)
    return {"state": state, "next": train(backend, here, range(2, 3)) + train(backend, here, range(1))}


def resumed(world: World, *, layout: Layout, folder: Path, family: str = "qwen3") -> dict[str, Any]:
    """What is restored into a model of other weights, and the losses of the two steps after it."""
    backend, here = backend_of(world, layout, family=family, seed=5)
    manager = new_manager(folder)
    manager.resume(backend.trainee)
    manager.close()
    state = state_of(backend)
    return {"state": state, "next": train(backend, here, range(2, 3)) + train(backend, here, range(1))}


def streamed(world: World, *, layout: Layout, folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a model that each rank read from files into its shards."""
    model, weights = open_model(ModelSpec(name=str(folder)))
    backend = FsdpBackend(model, settings(layout=layout), world, weights)
    parameters = backend.trainee.model.named_parameters(remove_duplicate=False)
    return {name: whole(parameter.detach()) for name, parameter in parameters}
