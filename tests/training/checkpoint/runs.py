"""A small run with dropout, a schedule and a loss: enough to show that nothing of it is lost in a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from skills_pipe.training.checkpoint.manager import CheckpointManager
from skills_pipe.training.checkpoint.retention import Retention
from skills_pipe.training.checkpoint.state import DataPosition, RunDescription, Trainee, TrainingInfo
from tests.training.tiny import tiny_model, tiny_tokenizer

RUN = RunDescription(
    config_yaml="checkpointing:\n  metric_name: val:val_loss\n  higher_is_better: false\n",
    model_fingerprint="model-a",
    data_fingerprint="data-a",
    seed=1,
    precision="float32",
    tokenizer=tiny_tokenizer(),
)


def new_trainee(*, seed: int = 0, architecture: str = "llama", tied: bool = False) -> Trainee:
    model = tiny_model(architecture, seed=seed, tie_word_embeddings=tied, attention_dropout=0.1)
    model.train()
    return with_optimizer(model)


def with_optimizer(model: torch.nn.Module) -> Trainee:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=10)
    return Trainee(model=model, optimizer=optimizer, scheduler=scheduler)


def train(trainee: Trainee, steps: int) -> list[float]:
    """Train on random tokens; the losses depend on every random number drawn before."""
    losses = []
    for _ in range(steps):
        ids = torch.randint(0, 264, (2, 16))
        loss = trainee.model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        trainee.optimizer.step()
        trainee.scheduler.step()
        trainee.optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def new_manager(folder: Path, *, run: RunDescription = RUN, retention: Retention | None = None) -> CheckpointManager:
    manager = CheckpointManager(folder, run=run, retention=retention)
    manager.start()
    return manager


def info_at(step: int, **metrics: float) -> TrainingInfo:
    named = {name.replace("__", ":"): value for name, value in metrics.items()}
    return TrainingInfo(
        total_steps=step, epoch=0, step=step, consumed_samples=2 * step, total_valid_tokens=30 * step, metrics=named
    )


def position_at(step: int, *, seed: int = 1, fingerprint: str = "data-a") -> DataPosition:
    return DataPosition(consumed_samples=2 * step, seed=seed, fingerprint=fingerprint)


def save_steps(folder: Path, *steps: int, trainee: Trainee | None = None, run: RunDescription = RUN) -> Trainee:
    """Save a checkpoint of every step, training a step before each, and give the folder back."""
    trainee = trainee or new_trainee()
    manager = new_manager(folder, run=run)
    for step in steps:
        train(trainee, 1)
        manager.save(trainee, info_at(step), position_at(step))
    manager.close()
    return trainee


def equal_trainees(one: Trainee, other: Trainee) -> bool:
    """Whether models, moments and schedules are equal bit for bit."""
    moments = [
        [trainee.optimizer.state[parameter] for parameter in trainee.model.parameters()] for trainee in (one, other)
    ]
    return (
        equal_models(one.model, other.model)
        and one.scheduler.state_dict() == other.scheduler.state_dict()
        and all(
            mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
            for mine, theirs in zip(*moments, strict=True)
        )
    )


def equal_models(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether all parameters and persistent buffers are equal bit for bit."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def other_trainee():
    """As :func:`new_trainee`, with another rate, weight decay and schedule."""
    model = new_trainee().model
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5, weight_decay=0.25)
    return Trainee(
        model=model, optimizer=optimizer, scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
    )
