"""The processes that train together: who they are, which device each has, and how they agree."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

_TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for another before it gives up; saving a large model may keep one busy that long."""


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among those that train together.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes; with 1 there is no process group, unless one was asked for.
        device: where this process computes.
        same_rows: neighbouring ranks that are given the same documents, as those that share each layer are.
    """

    rank: int
    size: int
    device: torch.device
    same_rows: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def data_rank(self) -> int:
        """Number of this process's share of the documents, from 0."""
        return self.rank // self.same_rows

    @property
    def data_size(self) -> int:
        """Shares into which the documents of a batch are divided."""
        return self.size // self.same_rows

    def sum(self, value: float) -> float:
        """``value`` added up over all ranks, the same on each."""
        return self._reduce(value, dist.ReduceOp.SUM)

    def max(self, value: float) -> float:
        """The largest ``value`` of all ranks, the same on each."""
        return self._reduce(value, dist.ReduceOp.MAX)

    def total(self, counts: Tensor) -> Tensor:
        """``counts`` in host memory, added up over all ranks, the same on each."""
        # A copy, which is all that one rank alone does.
        summed = counts.detach().to("cpu", copy=True)
        if self.size > 1:
            dist.all_reduce(summed)
        return summed

    def to_first(self, value: T) -> list[T]:
        """The ``value`` of each rank in their order on rank 0, nothing on the others."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size if self.first else []
        dist.gather_object(value, values if self.first else None, dst=0)
        return values

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        self.sum(0.0)

    def _reduce(self, value: float, operation: dist.ReduceOp.RedOpType) -> float:
        if self.size == 1:
            return value
        # A CPU tensor goes through gloo, so that waiting does not stop a GPU's stream.
        tensor = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(tensor, operation)
        return float(tensor.item())


@contextmanager
def join(*, group_of_one: bool = False) -> Iterator[World]:
    """Join the process group that torchrun or Slurm describes in the environment, and leave it at the end.

    Started by hand, the world is this one process, which gets a process group where ``group_of_one`` asks for it. After
    an error the group stays: the process is to end.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        _read_slurm()
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = _device(int(os.environ.get("LOCAL_RANK", "0")))
    if size == 1 and not group_of_one:
        yield World(rank=0, size=1, device=device)
        return
    # Both: numbers, and tensors that lie in host memory, go through gloo.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if size == 1:
        dist.init_process_group(backend, timeout=_TIMEOUT, store=dist.HashStore(), rank=0, world_size=1)
    else:
        dist.init_process_group(backend, timeout=_TIMEOUT)
    # After an error there is no farewell: it could wait for ranks that wait for this one.
    yield World(rank=dist.get_rank(), size=size, device=device)
    # What training left in reference cycles still holds the groups; gloo's threads must not outlive them.
    gc.collect()
    dist.destroy_process_group()


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # Slurm may show each task its own GPU only, torchrun shows all of them to every process.
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _read_slurm() -> None:
    """Set the variables of torch.distributed from those of a Slurm step with one task per rank."""
    # Imported here: most processes are no tasks of Slurm.
    from skills_pipe.training.slurm_step import read_step

    read_step().export(overwrite=True, set_cuda_visible_devices=False)
