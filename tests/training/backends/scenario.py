"""The same short training in any number of processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.config import ObjectConfig
from skills_pipe.training.data.batches import BatchSettings, split_batch
from skills_pipe.training.data.dataset import Example, SftDataset
from skills_pipe.training.distributed import World
from tests.training.tiny import tiny_model

BATCH = 8
STEPS = 3
ADAMW = ObjectConfig(name="torch.optim.AdamW", kwargs={"lr": 1e-3})

SCENARIOS = {
    "float32": FsdpSettings(optimizer=ADAMW),
    "bfloat16": FsdpSettings(optimizer=ADAMW, dtype=torch.bfloat16),
    "recomputed": FsdpSettings(optimizer=ADAMW, activation_checkpointing=True),
    "recomputed in part": FsdpSettings(
        optimizer=ADAMW, activation_checkpointing=True, recompute_granularity="selective"
    ),
    "synced each microbatch": FsdpSettings(optimizer=ADAMW, defer_grad_sync=False),
    "in host memory": FsdpSettings(optimizer=ADAMW, cpu_offload=True, defer_grad_sync=False),
}


@dataclass(frozen=True, kw_only=True)
class Found:
    """Losses and gradient norms of the steps, the loss of an evaluation after them, and the final weights."""

    losses: list[float]
    norms: list[float]
    evaluated: float
    weights: dict[str, torch.Tensor]


def dataset(documents: int = BATCH * STEPS, seed: int = 5) -> SftDataset:
    """Documents of 4 to 60 tokens, of which a few to most are trained."""
    random = np.random.RandomState(seed)
    examples = []
    for _ in range(documents):
        length = random.randint(4, 61)
        mask = (random.rand(length) < random.rand()).astype(np.uint8)
        mask[0], mask[-1] = 0, 1
        examples.append(Example(input_ids=random.randint(5, 260, length).astype(np.int32), loss_mask=mask))
    return SftDataset.from_examples(examples)


def make_backend(settings: FsdpSettings, world: World, architecture: str = "llama", **changes) -> FsdpBackend:
    return FsdpBackend(tiny_model(architecture, **changes), settings, world)


def train(settings: FsdpSettings, world: World, batches: BatchSettings, architecture: str = "llama") -> Found:
    backend, data = make_backend(settings, world, architecture), dataset()
    losses, norms = [], []
    for step in range(STEPS):
        batch = split_batch(data, range(step * BATCH, (step + 1) * BATCH), batches, world.rank, world.size)
        result = backend.train_step(batch.microbatches, targets=batch.global_targets)
        losses.append(result.loss)
        norms.append(result.grad_norm)
    batch = split_batch(data, range(BATCH), batches, world.rank, world.size)
    evaluated = backend.evaluate(batch.microbatches) / batch.global_targets
    weights = {name: whole(value) for name, value in backend.trainee.model.state_dict().items()}
    return Found(losses=losses, norms=norms, evaluated=evaluated, weights=weights)


def whole(value: torch.Tensor) -> torch.Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value.clone()


PACKED = BatchSettings(capacity=128)


def train_all(world: World) -> dict[str, Found]:
    """Every scenario, and every family of models; a case for the ranks of the tests."""
    found = {name: train(settings, world, PACKED) for name, settings in SCENARIOS.items()}
    families = ("qwen2", "qwen3", "mistral", "gpt2")
    return found | {name: train(SCENARIOS["float32"], world, PACKED, name) for name in families}
