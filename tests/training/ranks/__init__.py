"""Processes that stay alive and compute cases together, for tests of what several ranks do.

::

    def losses(world: World, *, architecture: str) -> list[float]:
        ...                                   # a function of a module, the same on each rank, with collectives

    def test_ranks_agree(four_ranks):
        first, *others = four_ranks(losses, architecture="qwen3")

The fixtures ``two_ranks`` and ``four_ranks`` call a function on every rank, each time within a fresh gloo group, and
give the results in the order of ranks. Arguments and results are pickled. Starting torchrun takes 10 s each time, a
case in living processes a tenth of a second.
"""
