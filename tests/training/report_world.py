"""Joins the world that the environment describes and says what it found."""

from __future__ import annotations

from skills_pipe.training.distributed import join

if __name__ == "__main__":
    with join() as world:
        total, largest = world.sum(world.rank + 1.0), world.max(world.rank + 1.0)
        print(f"rank {world.rank} of {world.size}: sum {total}, max {largest}", flush=True)
