"""Joins the world that the environment describes and says what it found."""

from __future__ import annotations

from skills_pipe.training.distributed import join
from skills_pipe.training.program import leave

if __name__ == "__main__":
    with join() as world:
        total, largest = world.sum(world.rank + 1.0), world.max(world.rank + 1.0)
        # Text and line break in one write: lines of two ranks must not run into each other.
        print(f"rank {world.rank} of {world.size}: sum {total}, max {largest}\n", end="", flush=True)
    leave(0)
