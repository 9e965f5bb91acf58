"""One rank of a sharded run: ``torchrun ... -m tests.training.checkpoint.sharded save|load FOLDER``.

``save`` trains three steps, saves step 3 and puts the gathered state into reference.pt; ``load`` resumes from step 3
and fails unless the gathered state is equal bit for bit. Rank 0 prints the warnings of the resume.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from skills_pipe.training.checkpoint.state import Trainee
from skills_pipe.training.distributed import leave
from tests.training.checkpoint.runs import info_at, new_manager, position_at, train, with_optimizer
from tests.training.tiny import tiny_model


def sharded_trainee(*, seed: int, tied: bool) -> Trainee:
    model = tiny_model(seed=seed, tie_word_embeddings=tied)
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
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


def main() -> None:
    mode, folder, tied = sys.argv[1], Path(sys.argv[2]), "tied" in sys.argv[3:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(dist.get_rank())
    trainee = sharded_trainee(seed=0 if mode == "save" else 5, tied=tied)
    assert all(isinstance(parameter, DTensor) for parameter in trainee.model.parameters())
    manager = new_manager(folder)
    reference = folder.parent / "reference.pt"
    if mode == "save":
        train(trainee, 3)
        manager.save(trainee, info_at(3), position_at(3))
        whole = gathered(trainee)
        if dist.get_rank() == 0:
            torch.save(whole, reference)
    else:
        point = manager.resume(trainee)
        whole = gathered(trainee)
        if dist.get_rank() == 0:
            print("\n".join(point.warnings))
            found = differences(whole, torch.load(reference))
            if found:
                sys.exit(f"differs: {found}")
    manager.close()


def run() -> None:
    try:
        main()
    finally:
        # The parameters' device mesh holds the process group: alive at exit, its threads would abort the process.
        gc.collect()
        dist.destroy_process_group()


if __name__ == "__main__":
    run()
    leave(0)
