"""Documents longer than the model may see: left out, shortened, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from skills_pipe.training.data.dataset import Example
from skills_pipe.training.data.encoded import Encoded

Overlong = Literal["drop", "truncate", "error"]


def truncate(example: Example, limit: int, *, bos_id: int | None) -> Example:
    """Shorten a document to ``limit`` tokens.

    The oldest part of the prompt goes first: the beginning-of-text token, the end of the prompt and the whole answer
    with its stop token stay. Only an answer that is too long by itself is cut at its end; its stop token goes with it,
    so the model never learns to stop in the middle of a sentence.
    """
    ids, mask = example.input_ids, example.loss_mask
    excess = len(ids) - limit
    if excess <= 0:
        return example
    # Not the greatest weight: the first one.
    first_target = int(np.argmax(mask != 0)) if mask.any() else len(ids)
    # One token at least must stand before the first trained one.
    kept = 1 if bos_id is not None and ids[0] == bos_id else 0
    cut = min(excess, max(first_target - max(kept, 1), 0))
    keep = np.r_[0:kept, kept + cut : len(ids)][:limit]
    return Example(input_ids=ids[keep], loss_mask=mask[keep])


def shorten_fields(document: Encoded, limit: int) -> Encoded:
    """Take from the stretches that the format of a document allows to shorten, at the ends that it names.

    They share equally in what is too much, the first ones taking one token more where that does not come out even; what
    a stretch is too short for, the others give. The document is still too long where all of them together do not do.
    """
    excess = len(document.input_ids) - limit
    if excess <= 0:
        return document
    keep = np.ones(len(document.input_ids), dtype=bool)
    taken = _shares(excess, [part.stop - part.start for part in document.cuttable])
    for part, count in zip(document.cuttable, taken, strict=True):
        start = part.start if part.end == "left" else part.stop - count
        keep[start : start + count] = False
    mask = document.loss_mask[keep]
    mask[:1] = 0
    return Encoded(input_ids=document.input_ids[keep], loss_mask=mask, straddling=document.straddling)


def _shares(wanted: int, rooms: Sequence[int]) -> list[int]:
    """``wanted`` divided equally among stretches with so much to give; less in all where they have less."""
    taken = [0] * len(rooms)
    left = min(wanted, sum(rooms))
    while left:
        giving = [at for at, room in enumerate(rooms) if taken[at] < room]
        each, more = divmod(left, len(giving))
        for order, at in enumerate(giving):
            share = min(each + (order < more), rooms[at] - taken[at])
            taken[at] += share
            left -= share
    return taken
