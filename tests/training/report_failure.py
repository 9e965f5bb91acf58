"""A rank that fails while the other one waits for it."""

from __future__ import annotations

from skills_pipe.training.distributed import join
from skills_pipe.training.program import end


def main() -> int:
    with join() as world:
        if world.rank == 1:
            raise KeyError("the weight")
        world.barrier()
    return 0


if __name__ == "__main__":
    end(main)
