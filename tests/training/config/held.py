"""What a rank really holds in a step of training, for estimates to be compared with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.config import load_config
from skills_pipe.training.data.batches import BatchSettings, split_batch
from skills_pipe.training.distributed import World
from tests.training.backends.layouts import FAMILIES, MIXTURES
from tests.training.backends.scenario import BATCH, dataset
from tests.training.tiny import tiny_model

ROWS = BatchSettings(capacity=61)
"""Several microbatches of each rank."""

SHAPES = {**FAMILIES, **MIXTURES}


def policy(**changes: Any) -> Any:
    needed = ["++policy.model_name=m", "++data.train_data_path=d.jsonl", "++sft.max_num_steps=1"]
    made = load_config(None, [*needed, f"++policy.train_global_batch_size={BATCH}", "++policy.precision=float32"])
    return replace(made.policy, dtensor_cfg=replace(made.policy.dtensor_cfg, **changes))


def held(world: World, *, family: str, sizes: dict[str, Any]) -> dict[str, int]:
    """Bytes of weights, of gradients in a step, and of the states of the optimizer on this rank."""
    settings = FsdpSettings.of(policy(**sizes), ranks=world.size)
    here = replace(world, same_rows=settings.layout.same_rows if settings.layout else 1)
    backend = FsdpBackend(tiny_model(family, **SHAPES[family]), settings, here)
    optimizer, model = backend.trainee.optimizer, backend.trainee.model
    gradients = []
    optimizer.register_step_pre_hook(lambda *_: gradients.append(sum(local(each.grad) for each in model.parameters())))
    batch = split_batch(dataset(), range(BATCH), ROWS, here.data_rank, here.data_size)
    backend.train_step(batch.microbatches, targets=batch.global_weight)
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    return {
        "weights": sum(local(each) for each in model.parameters()),
        "gradients": gradients[0],
        "optimizer": sum(local(each) for each in moments),
    }


def local(tensor: torch.Tensor) -> int:
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes
