"""Ranks that compute on another device than the host: on the one of this package, or on GPUs where there are any."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from skills_pipe.training.distributed import World
from tests.training.standin.device import BACKENDS, NAME, register


@contextmanager
def computing_on(world: World, device: str, library: str) -> Iterator[World]:
    """The same ranks within a group that carries tensors of the host and of ``device``: ``standin`` or ``cuda``."""
    if device == NAME:
        register(Path(library))
        here, backends = torch.device(NAME, 0), BACKENDS
    else:
        here, backends = torch.device("cuda", world.rank), "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(here)
    dist.barrier()
    dist.destroy_process_group()
    store = dist.FileStore("of_two_places", world.size)
    dist.init_process_group(backends, store=store, rank=world.rank, world_size=world.size)
    yield replace(world, device=here)
