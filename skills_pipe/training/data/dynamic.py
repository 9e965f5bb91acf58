"""Dynamic batching: documents of similar length share a microbatch, as many as a budget of tokens allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skills_pipe.errors import DataError
from skills_pipe.training.data.pack import Bins


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How many documents a microbatch may have.

    Attributes:
        tokens: most tokens, each document counted with the length of the longest.
        multiple: that length is rounded up to a multiple of this ...
        width: ... but not beyond this, the longest document that there may be; None: the longest of the batch.
    """

    tokens: int
    multiple: int = 1
    width: int | None = None


def dynamic(lengths: Sequence[int], budget: Budget, world: int) -> Bins:
    """Divide a global batch into microbatches as NeMo RL does.

    The documents are sorted by length and dealt out to the ranks in turn. All ranks cut their documents at the same
    places: a microbatch ends where the longest document of any rank, times the number of documents, would exceed the
    budget.

    Args:
        lengths: tokens of each document of the batch.
        budget: of a microbatch on one rank.
        world: number of ranks.

    Returns:
        Bins of positions in ``lengths``; bin i belongs to rank i modulo ``world``. Where the documents cannot be dealt
        out evenly, the last bins may be empty.

    Raises:
        DataError: a document does not fit into a microbatch of its own.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    rounds = [order[start : start + world] for start in range(0, len(order), world)]
    width = budget.width if budget.width is not None else max(lengths, default=0)
    bins: Bins = []
    count = 0
    for dealt in rounds:
        # The last of a round is its longest, and rounds grow.
        longest = min(-(-lengths[dealt[-1]] // budget.multiple) * budget.multiple, width)
        if longest > budget.tokens:
            raise DataError(
                f"a document of {lengths[dealt[-1]]} tokens, rounded to {longest}, does not fit into a microbatch of "
                f"{budget.tokens}",
                where="policy.dynamic_batching.train_mb_tokens",
                fix=f"raise it to {longest} or more",
            )
        if not count or (count + 1) * longest > budget.tokens:
            bins += [[] for _ in range(world)]
            count = 0
        count += 1
        for rank, position in enumerate(dealt):
            bins[len(bins) - world + rank].append(position)
    return bins
