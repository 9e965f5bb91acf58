"""Tokens that begin and end documents and answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerBase

from skills_pipe.training.data.dataset import Example


@dataclass(kw_only=True)
class Endings:
    """Counts over documents.

    Attributes:
        documents: number of them.
        with_bos: begin with the beginning-of-text token.
        bos_inside: have one right behind another, or one in a document with a single answer, behind its start.
        padding: have trained padding tokens that end nothing.
        last: token -> answers that end with it; None for tokens that are not special.
    """

    documents: int = 0
    with_bos: int = 0
    bos_inside: int = 0
    padding: int = 0
    last: Counter[str | None] = field(default_factory=Counter)


class EndingCounter:
    """Looks at the ids of documents.

    Args:
        tokenizer: theirs.

    Attributes:
        found: what was counted so far.
        expects_bos: whether the tokenizer puts a beginning-of-text token before any text by itself, as the model's
            makers had it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.found = Endings()
        self._bos = tokenizer.bos_token_id
        self._pad = tokenizer.pad_token_id
        self._ends = {tokenizer.eos_token_id, self._bos}
        self._special = {index: str(token) for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.expects_bos = self._bos is not None and tokenizer("a")["input_ids"][:1] == [self._bos]

    def add(self, example: Example) -> None:
        """Count a document."""
        ids, trained = example.input_ids, example.loss_mask != 0
        found = self.found
        found.documents += 1
        answers = _last_of_runs(trained)
        if self._bos is not None and len(ids):
            found.with_bos += int(ids[0] == self._bos)
            # Templates of several turns may begin each of them anew; one answer has one beginning.
            inside = int((ids[1:] == self._bos).sum())
            found.bos_inside += int(inside > max(len(answers) - 1, 0) and self._bos != self._pad)
        if self._pad is not None and self._pad not in self._ends:
            found.padding += int(((ids == self._pad) & trained).any())
        for position in answers:
            found.last[self._ending(ids, trained, position)] += 1

    def _ending(self, ids: np.ndarray, trained: np.ndarray, position: int) -> str | None:
        """The special token that an answer ends with; a line break may follow it."""
        for at in range(position, max(position - 3, -1), -1):
            if not trained[at]:
                break
            if int(ids[at]) in self._special:
                return self._special[int(ids[at])]
        return None


def _last_of_runs(trained: np.ndarray) -> list[int]:
    """Positions of the last token of each stretch of trained ones."""
    following = np.append(trained[1:], False)
    return [int(position) for position in np.flatnonzero(trained & ~following)]
