"""Text -> ids by tiktoken."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import tiktoken
from tokenizers import Tokenizer

from skills_pipe.training.data.bpe.structure import ByteBpe


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
        self._encode = tiktoken.Encoding(
            "byte-level", pat_str=structure.pattern, mergeable_ranks=dict(structure.ranks), special_tokens={}
        ).encode_ordinary

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens around them."""
        return [self._ids(text) for text in texts]

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
                ids += self._encode(part)
        return ids

    def _is_plain(self, text: str) -> bool:
        if self._composed and not unicodedata.is_normalized("NFC", text):
            return False
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
        return True


def _any_of(tokens: Mapping[str, int]) -> re.Pattern[str] | None:
    """Matches the longest of ``tokens`` at the leftmost place, as a group so that splitting keeps it."""
    if not tokens:
        return None
    return re.compile("(" + "|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) + ")")
