"""A training that is saved on one layout of ranks and goes on on another; a case for the ranks of the tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.config import ObjectConfig
from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.config.schema.policy import SchedulerConfig
from skills_pipe.training.data.batches import split_batch
from skills_pipe.training.distributed import World
from skills_pipe.training.models.load import open_model
from skills_pipe.training.models.spec import ModelSpec
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


def backend_of(
    world: World, layout: Layout, *, family: str, seed: int, adapters: AdapterSpec | None = None
) -> tuple[FsdpBackend, World]:
    """Other weights for another seed; of adapters, other ones on the same model, and an average of them."""
    model = tiny_model(family, seed=seed if adapters is None else 0, **SHAPES[family])
    made = settings(optimizer=ADAMW, scheduler=WARMUP, layout=layout)
    if adapters is not None:
        made = replace(made, adapters=adapters, seed=seed, average_decay=0.7)
    return FsdpBackend(model, made, world), replace(world, same_rows=layout.same_rows)


def train(backend: FsdpBackend, here: World, steps: range) -> list[float]:
    data, losses = dataset(), []
    for step in steps:
        batch = split_batch(data, range(step * BATCH, (step + 1) * BATCH), ROWS, here.data_rank, here.data_size)
        losses.append(backend.train_step(batch.microbatches, targets=batch.global_weight).loss)
    return losses


def state_of(backend: FsdpBackend) -> dict[str, torch.Tensor]:
    """Every weight, moment and average, whole; copies, because what a rank holds whole is trained on in place."""
    named = dict(backend.trainee.model.named_parameters())
    averaged = backend.trainee.average.state() if backend.trainee.average is not None else {}
    found = {name: whole(parameter.detach()).clone() for name, parameter in named.items()}
    found |= {f"average of {name}": whole(value).clone() for name, value in averaged.items()}
    for name, parameter in named.items():
        if not parameter.requires_grad:
            continue
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            found[f"{moment} of {name}"] = whole(backend.trainee.optimizer.state[parameter][moment]).clone()
    return found


def saved(
    world: World, *, layout: Layout, folder: Path, family: str = "qwen3", adapters: AdapterSpec | None = None
) -> dict[str, Any]:
    """Two steps, saved; what was saved, and the losses of the two steps after it."""
    backend, here = backend_of(world, layout, family=family, seed=0, adapters=adapters)
    train(backend, here, range(2))
    manager = new_manager(folder)
    manager.save(backend.trainee, info_at(2), position_at(2))
    manager.close()
    state = state_of(backend)
    return {"state": state, "next": train(backend, here, range(2, 3)) + train(backend, here, range(1))}


def resumed(
    world: World, *, layout: Layout, folder: Path, family: str = "qwen3", adapters: AdapterSpec | None = None
) -> dict[str, Any]:
    """What is restored into a model of other weights, and the losses of the two steps after it."""
    backend, here = backend_of(world, layout, family=family, seed=5, adapters=adapters)
    manager = new_manager(folder)
    manager.resume(backend.trainee)
    manager.close()
    state = state_of(backend)
    return {"state": state, "next": train(backend, here, range(2, 3)) + train(backend, here, range(1))}


def streamed(
    world: World, *, layout: Layout, folder: Path, adapters: AdapterSpec | None = None
) -> dict[str, torch.Tensor]:
    """The weights of a model that each rank read from files into its shards."""
    model, weights = open_model(ModelSpec(name=str(folder)))
    backend = FsdpBackend(model, settings(layout=layout, adapters=adapters, seed=3), world, weights)
    parameters = backend.trainee.model.named_parameters(remove_duplicate=False)
    return {name: whole(parameter.detach()) for name, parameter in parameters}
