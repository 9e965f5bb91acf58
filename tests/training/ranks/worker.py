"""One rank that computes cases until its parent goes: ``python -m tests.training.ranks.worker ADDRESS RANK SIZE``."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import importlib
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Client, Connection
from operator import attrgetter
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor._redistribute import clear_redistribute_planner_cache
from torch.distributed.tensor.debug import _clear_python_sharding_prop_cache, _clear_sharding_prop_cache

from skills_pipe.training.checkpoint import rng
from skills_pipe.training.distributed import World
from skills_pipe.training.importing import importing

_TIMEOUT = timedelta(minutes=10)


def main() -> None:
    address, rank, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    # Asked by the parent where a rank hangs.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    torch.set_num_threads(1)
    world = World(rank=rank, size=size, device=torch.device("cpu"))
    with Client(address, "AF_UNIX") as parent:
        parent.send_bytes(pickle.dumps(rank))
        _serve(parent, world)


def _serve(parent: Connection, world: World) -> None:
    while True:
        try:
            message = parent.recv_bytes()
        except EOFError:
            return
        parent.send_bytes(_answer(world, message))


def _answer(world: World, message: bytes) -> bytes:
    """The result of one case, or the traceback of its failure."""
    try:
        name, arguments, store, folder = pickle.loads(message)
        os.chdir(folder)
        # Modules are set aside: garbage is looked for after each case, and would be among all of them.
        with importing():
            case = _case(name)
        with _group(store, world):
            return pickle.dumps((case(world, **arguments), None))
    except BaseException as error:
        # Everything, also SystemExit: it belongs to the test, and this process goes on.
        return pickle.dumps((None, (f"{type(error).__name__}: {error}", traceback.format_exc())))


@contextlib.contextmanager
def _group(store: str, world: World) -> Any:
    """A process group for one case: none is hurt by what the case before left behind."""
    rng.reseed(world.rank)
    dist.init_process_group(
        "gloo", store=dist.FileStore(store, world.size), rank=world.rank, world_size=world.size, timeout=_TIMEOUT
    )
    try:
        yield
        # Nobody closes its connections while another still needs what came through them.
        dist.barrier()
    finally:
        _forget_meshes()
        gc.collect()
        dist.destroy_process_group()


def _forget_meshes() -> None:
    """Empty the caches by which DTensors keep the meshes of a case, and so its groups.

    Each group has three threads that wake up a hundred times a second; after a hundred cases nothing else would run.
    """
    _clear_sharding_prop_cache()
    _clear_python_sharding_prop_cache()
    clear_redistribute_planner_cache()
    for name, module in list(sys.modules.items()):
        if name.startswith("torch.distributed"):
            owners = [module, *(value for value in vars(module).values() if isinstance(value, type))]
            for value in [value for owner in owners for value in vars(owner).values()]:
                cached = getattr(value, "__func__", value)  # of a static method
                if isinstance(cached, functools._lru_cache_wrapper):
                    cached.cache_clear()


def _case(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    return attrgetter(function)(importlib.import_module(module))


if __name__ == "__main__":
    main()
