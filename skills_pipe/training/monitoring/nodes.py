"""What the nodes of a training use, measured on each beside the training and brought to rank 0 between its steps."""

from __future__ import annotations

import os
import time

import torch

from skills_pipe.artifacts.metrics import NODES
from skills_pipe.training.checkpoint.ranks import on_all
from skills_pipe.training.config.schema.logger import LoggerConfig
from skills_pipe.training.distributed import World
from skills_pipe.training.monitoring.sampler import Measured, Sampler
from skills_pipe.training.monitoring.usage import gpus, host_memory


class NodeMonitor:
    """On each rank of a training; the first rank of a node measures it.

    Threads only measure. They send nothing: what they have is gathered by all ranks after a step, every
    ``flush_seconds`` by the clock of rank 0.

    Args:
        world: the ranks.
        sampler: None on all ranks but the first of a node.
        flush_seconds: between two gatherings.
    """

    def __init__(self, world: World, sampler: Sampler | None, *, flush_seconds: float) -> None:
        self._world, self._sampler, self._flush_seconds = world, sampler, flush_seconds
        self._flushed = time.monotonic()

    @classmethod
    def of(cls, config: LoggerConfig, world: World) -> NodeMonitor | None:
        """What the configuration asks for, None for nothing; on every rank."""
        if not config.monitor_gpus:
            return None
        settings = config.gpu_monitoring
        first = int(os.environ.get("LOCAL_RANK", world.rank)) == 0
        # A node has as many before it as there are first ranks before its own.
        node = sum(on_all(lambda: first)[: world.rank])
        readings = {"memory": host_memory} | ({"GPUs": gpus} if torch.cuda.is_available() else {})
        prefix = f"{NODES}node.{node}"
        sampler = Sampler(readings, interval=settings.collection_interval, prefix=prefix) if first else None
        return cls(world, sampler, flush_seconds=settings.flush_interval)

    def start(self) -> None:
        """Begin to measure this node, where that is up to this rank."""
        if self._sampler is not None:
            self._sampler.start()

    def gather(self, *, now: bool) -> Measured:
        """What the nodes have measured, on rank 0: every now and then, and when it is to be ``now``; on every rank."""
        due = now or (self._world.first and time.monotonic() - self._flushed >= self._flush_seconds)
        if not self._world.max(float(due)):
            return Measured()
        self._flushed = time.monotonic()
        return Measured.together(self._world.to_first(self._take()))

    def close(self) -> Measured:
        """End the measuring; what this rank alone still has, whatever happened to the others."""
        if self._sampler is not None:
            self._sampler.close()
        return self._take()

    def _take(self) -> Measured:
        return self._sampler.take() if self._sampler is not None else Measured()
