"""Documents longer than the model may see: left out, shortened, or refused."""

from __future__ import annotations

from typing import Literal

import numpy as np

from skills_pipe.training.data.dataset import Example

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
    first_target = int(np.argmax(mask)) if mask.any() else len(ids)
    # One token at least must stand before the first trained one.
    kept = 1 if bos_id is not None and ids[0] == bos_id else 0
    cut = min(excess, max(first_target - max(kept, 1), 0))
    keep = np.r_[0:kept, kept + cut : len(ids)][:limit]
    return Example(input_ids=ids[keep], loss_mask=mask[keep])
