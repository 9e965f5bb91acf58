"""The fast form of a tokenizer: the program that makes tokens of text, with nothing left on from another use of it."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase


def fast_form(tokenizer: PreTrainedTokenizerBase) -> Any:
    """The ``tokenizers.Tokenizer`` of a tokenizer, set as for a call of it that asks for nothing; None without one.

    Files of tokenizers may have truncation or padding on, and every call through transformers leaves its settings
    behind; later calls set theirs again.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = bool(getattr(tokenizer, "split_special_tokens", False))
    return backend


def highest_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The greatest token id; vocabularies may have gaps, so their number of tokens says nothing of it."""
    return max(tokenizer.get_vocab().values(), default=-1)
