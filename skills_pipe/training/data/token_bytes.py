"""How many bytes of a text each token of a byte-level tokenizer stands for."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

NormalForm = Literal["NFC", "NFD", "NFKC", "NFKD"]


@dataclass(frozen=True, kw_only=True)
class TokenBytes:
    """Lengths of tokens, from which follow their places in a text without asking the tokenizer for them.

    Attributes:
        lengths: int64 [vocabulary], bytes of each token.
        normal_form: the Unicode form that the tokenizer brings texts into, None when it leaves them as they are.
    """

    lengths: NDArray[np.int64]
    normal_form: NormalForm | None = None

    @classmethod
    def of(cls, backend: Any) -> TokenBytes | None:
        """Of a ``tokenizers`` tokenizer; None where its tokens are not simply stretches of bytes."""
        state = json.loads(backend.to_str())
        normalizer = state["normalizer"]
        if not _is_byte_level(state) or (normalizer is not None and normalizer["type"] not in _NORMAL_FORMS):
            return None
        vocabulary = backend.get_vocab(with_added_tokens=True)
        lengths = np.zeros(max(vocabulary.values(), default=-1) + 1, dtype=np.int64)
        for token, index in vocabulary.items():
            # Byte-level vocabularies write each byte as one character.
            lengths[index] = len(token)
        for added in state["added_tokens"]:
            if added["lstrip"] or added["rstrip"] or added["single_word"]:
                return None
            lengths[added["id"]] = len(added["content"].encode())
        return cls(lengths=lengths, normal_form=normalizer["type"] if normalizer is not None else None)

    def tell(self, text: str, total: int) -> bool:
        """Whether the places of the tokens of ``text`` follow, when they have ``total`` bytes together."""
        if self.normal_form is not None and not unicodedata.is_normalized(self.normal_form, text):
            return False
        return total == byte_length(text)


def byte_length(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


_NORMAL_FORMS: Final = ("NFC", "NFD", "NFKC", "NFKD")


def _is_byte_level(state: dict[str, Any]) -> bool:
    """Whether the text is split, and each part written in bytes, with nothing added to it."""
    steps = state["pre_tokenizer"] or {}
    listed = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    if state["model"].get("type") != "BPE" or not listed or listed[-1].get("type") != "ByteLevel":
        return False
    kept = all(step["type"] in ("Split", "Digits") and step.get("behavior") != "Removed" for step in listed[:-1])
    return kept and not listed[-1]["add_prefix_space"] and not state["model"].get("continuing_subword_prefix")
