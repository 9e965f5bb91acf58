"""Text -> ids by tiktoken."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import tiktoken
from tokenizers import Tokenizer

from skills_pipe.training.data.bpe.structure import ByteBpe
from skills_pipe.training.data.tokens import Tokens


class FastEncoder:
    """Gives the ids that the Hugging Face tokenizer gives.

    Texts for which that takes more than tiktoken does, because they have to be normalised or are no valid Unicode, are
    left to the tokenizer itself.
    """

    def __init__(self, tokenizer: Tokenizer, structure: ByteBpe) -> None:
        self._tokenizer = tokenizer
        self._composed = structure.composed
        self._added = {**structure.then_added, **structure.first_added}
        self._first = _any_of(structure.first_added)
        self._then = _any_of(structure.then_added)
        self._last = 1 + max((*structure.ranks.values(), *self._added.values()))
        splits = not (self._first and self._then) and _prefix_free(self._added)
        splits = splits and not any(set(_END) & set(token) for token in self._added)
        self._encoding = tiktoken.Encoding(
            "byte-level",
            pat_str=structure.pattern,
            mergeable_ranks=dict(structure.ranks),
            special_tokens={**(self._added if splits else {}), _END: self._last},
        )
        self._allowed = {*self._added, _END} if splits else None

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """Token ids of the texts, without special tokens around them."""
        if self._allowed is not None:
            plain = [text.isascii() or self._is_plain(text) for text in texts]
            if all(plain):
                # One call for all, with a special token after each: no part of a text then sees another text.
                together = self._encoding.encode_to_numpy(
                    _END.join((*texts, "")), allowed_special=self._allowed, disallowed_special=()
                )
                ends = np.flatnonzero(together == self._last)
                if len(ends) == len(texts):
                    counts = np.diff(ends, prepend=-1) - 1
                    return Tokens(ids=together[together != self._last].astype(np.int32), counts=counts)
        return Tokens.of([self._ids(text) for text in texts])

    def _ids(self, text: str) -> list[int]:
        if not text.isascii() and not self._is_plain(text):
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        parts: Iterable[str] = self._first.split(text) if self._first else (text,)
        if self._then:
            parts = (piece for part in parts for piece in ((part,) if part in self._added else self._then.split(part)))
        ids: list[int] = []
        for part in parts:
            if part in self._added:
                ids.append(self._added[part])
            elif part:
                ids += self._encoding.encode_ordinary(part)
        return ids

    def _is_plain(self, text: str) -> bool:
        if self._composed and not unicodedata.is_normalized("NFC", text):
            return False
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
        return True


def _prefix_free(tokens: Iterable[str]) -> bool:
    """Whether no token begins with another: tiktoken takes any that fits, the tokenizer the longest."""
    ordered = sorted(tokens)
    return not any(longer.startswith(shorter) for shorter, longer in pairwise(ordered))


_END: Final = "\ue000\ue001\ue002"
"""Stands after each of many texts, which are tokenised one by one where any of them holds it. It does not begin as it
ends, so it is found where it was put, whatever stands before it."""


def _any_of(tokens: Mapping[str, int]) -> re.Pattern[str] | None:
    """Matches the longest of ``tokens`` at the leftmost place, as a group so that splitting keeps it."""
    if not tokens:
        return None
    return re.compile("(" + "|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) + ")")
