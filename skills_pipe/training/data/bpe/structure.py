"""What a Hugging Face tokenizer has to be so that tiktoken can do its work, read from the tokenizer itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tokenizers import Tokenizer

GPT2_PATTERN: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What the ByteLevel pre-tokenizer splits by, when it splits (GPT-2's encoder.py)."""

WHOLE_PATTERN: Final = r"[\s\S]+"


class NotByteBpe(Exception):
    """The tokenizer is of another kind; the message says in which way."""


@dataclass(frozen=True, kw_only=True)
class ByteBpe:
    """A byte-level BPE whose ids rise in the order of its merges, as tiktoken has them.

    Attributes:
        pattern: regular expression of the pieces that are tokenised by themselves.
        ranks: bytes of a token -> its id.
        first_added: tokens that are taken out of a text before anything else -> id.
        then_added: those that are taken out of what remains -> id.
        composed: whether text is brought into Unicode's form NFC first.
    """

    pattern: str
    ranks: Mapping[bytes, int]
    first_added: Mapping[str, int]
    then_added: Mapping[str, int]
    composed: bool


def read_structure(tokenizer: Tokenizer) -> ByteBpe:
    """The structure of a tokenizer.

    Raises:
        NotByteBpe: it has a part that tiktoken has no counterpart for.
    """
    tree = json.loads(tokenizer.to_str())
    model = tree["model"]
    _demand(model["type"] == "BPE", f"its model is {model['type']}")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        _demand(not model.get(key), f"its model has {key}")
    pattern = _pattern(tree["pre_tokenizer"])
    first, then = _added(tree["added_tokens"])
    ranks = _ranks(model, set(first) | set(then))
    if not model.get("ignore_merges"):
        _demand_reachable(tokenizer, ranks)
    return ByteBpe(
        pattern=pattern,
        ranks=ranks,
        first_added=first,
        then_added=then,
        composed=_composed(tree["normalizer"]),
    )


def _demand(condition: bool, otherwise: str) -> None:
    if not condition:
        raise NotByteBpe(otherwise)


def _added(tokens: Sequence[Mapping[str, Any]]) -> tuple[dict[str, int], dict[str, int]]:
    for token in tokens:
        for key in ("lstrip", "rstrip", "single_word"):
            _demand(not token[key], f"its token {token['content']!r} has {key}")
    first = {token["content"]: token["id"] for token in tokens if not token["normalized"]}
    then = {token["content"]: token["id"] for token in tokens if token["normalized"]}
    return first, then


def _composed(normalizer: Mapping[str, Any] | None) -> bool:
    _demand(normalizer is None or normalizer["type"] == "NFC", f"it normalises by {(normalizer or {}).get('type')}")
    return normalizer is not None


def _pattern(splitter: Mapping[str, Any] | None) -> str:
    splitter = splitter or {"type": "none"}
    parts = splitter["pretokenizers"] if splitter["type"] == "Sequence" else [splitter]
    last = parts[-1]
    _demand(last["type"] == "ByteLevel", "its last pre-tokenizer is not ByteLevel")
    _demand(not last["add_prefix_space"], "it puts a space in front of a text")
    if len(parts) == 1:
        return GPT2_PATTERN if last["use_regex"] else WHOLE_PATTERN
    split = parts[0]
    plain = len(parts) == 2 and split["type"] == "Split" and not last["use_regex"]
    _demand(plain, "it splits text by more than one rule")
    isolated = split["behavior"] == "Isolated" and not split["invert"] and "Regex" in split["pattern"]
    _demand(isolated, "it does not split text into all matches of a regular expression")
    return str(split["pattern"]["Regex"])


def _ranks(model: Mapping[str, Any], added: set[str]) -> dict[bytes, int]:
    """Bytes -> id of all tokens that text can become, by their merges."""
    vocabulary, byte_of = model["vocab"], _byte_of_character()
    ranks: dict[bytes, int] = {}
    for character, byte in byte_of.items():
        _demand(character in vocabulary, f"it has no token for the byte {byte}")
        ranks[bytes([byte])] = vocabulary[character]
    last = -1
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        token = left + right
        _demand(token in vocabulary and byte_of.keys() >= set(token), "a merge makes no token of bytes")
        number = vocabulary[token]
        # Merges of one token follow each other where a token can be made in more than one way.
        _demand(number >= last, "its ids are not in the order of its merges")
        last = number
        ranks[bytes(byte_of[character] for character in token)] = number
    if model.get("ignore_merges"):
        _demand(len(ranks) == len(vocabulary.keys() - added), "some of its tokens are made by no merge")
    return ranks


def _demand_reachable(tokenizer: Tokenizer, ranks: Mapping[bytes, int]) -> None:
    """tiktoken gives a piece that is a token that token; here merges must lead to it too."""
    character_of = {byte: character for character, byte in _byte_of_character().items()}
    for token, number in ranks.items():
        made = tokenizer.model.tokenize("".join(character_of[byte] for byte in token))
        _demand([part.id for part in made] == [number], f"its merges do not lead to its token {token!r}")


def _byte_of_character() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes: printable Latin-1 stands for itself, the others follow from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}
