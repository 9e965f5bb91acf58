"""A document token by token, with what is trained of it and who says what: the thing that previews show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from transformers import PreTrainedTokenizerBase

from skills_pipe.training.data.dataset import Example

_CONTEXT: Final = 4
"""Tokens that are decoded again with the next one: its text may depend on what stands before it."""
_MOST_BYTES: Final = 8
"""Tokens that one character can be made of at most; more are no text."""
_BROKEN: Final = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, kw_only=True)
class Token:
    """One token of a document.

    Attributes:
        id: its number.
        text: what it adds to the text; empty where the character is complete only with a later token.
        weight: factor of its loss, 0 where it is not trained.
        role: who says it, None where that cannot be told.
    """

    id: int
    text: str
    weight: float
    role: str | None = None


@dataclass(frozen=True, kw_only=True)
class Document:
    """One document as it is trained.

    Attributes:
        tokens: all of its tokens.
        where: file and line of its row.
        notes: what happened to the row, as sentences without a full stop.
    """

    tokens: tuple[Token, ...]
    where: str = ""
    notes: tuple[str, ...] = ()

    @property
    def trained(self) -> int:
        """Number of trained tokens."""
        return sum(token.weight != 0 for token in self.tokens)

    def turns(self) -> Iterator[tuple[str | None, list[Token]]]:
        """The tokens of each role in turn."""
        for role, group in groupby(self.tokens, key=lambda token: token.role):
            yield role, list(group)


def runs(tokens: Sequence[Token]) -> Iterator[tuple[float, list[Token]]]:
    """Stretches of tokens of one weight."""
    for weight, group in groupby(tokens, key=lambda token: token.weight):
        yield weight, list(group)


def document_of(example: Example, tokenizer: PreTrainedTokenizerBase) -> Document:
    """The document of a data set: nothing is known there of its row and of roles."""
    ids = example.input_ids.tolist()
    parts = zip(ids, token_texts(ids, tokenizer), example.loss_mask.tolist(), strict=True)
    return Document(tokens=tuple(Token(id=number, text=text, weight=float(weight)) for number, text, weight in parts))


def token_texts(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What each token adds to the text of those before it."""
    texts: list[str] = []
    context: list[int] = []
    before = ""
    pending: list[int] = []
    for number in ids:
        pending.append(number)
        told = _decoded([*context, *pending], tokenizer)
        added = told[len(before) :]
        if added.endswith(_BROKEN) and len(pending) < _MOST_BYTES:
            texts.append("")
            continue
        texts.append(added)
        context = [*context, *pending][-_CONTEXT:]
        before = _decoded(context, tokenizer)
        pending = []
    if pending:
        texts[-1] = _BROKEN
    return texts


def _decoded(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
