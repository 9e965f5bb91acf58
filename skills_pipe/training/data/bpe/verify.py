"""Whether tiktoken does what a tokenizer does: its structure is looked at, then both are given the same texts.

The texts are made to differ where the two programs could: all kinds of characters (their regular expressions come from
different engines, with tables of different versions of Unicode), all tokens side by side in random order, runs of
spaces, digits and line ends, added tokens whole and in pieces, and documents of the data themselves.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from skills_pipe.training.data.bpe.encoder import FastEncoder
from skills_pipe.training.data.bpe.structure import ByteBpe, NotByteBpe, read_structure
from skills_pipe.training.data.fast_form import fast_form

_PROBES = (
    "I'm you're he'll WE'VE don't it's 'S 'LL ſ's K'd",
    "0 1 12 123 1234 12345 1234567890 ٣٤٥ 一二三 ½ ² Ⅷ 1a2b3c a1 1.5e-10",
    "\n \n\n  \n\t\t\r\n\r\r\n   x  y   \n  z\t \u00a0\u00a0a \u3000b \u2003\u2003c",
    "\u200b\u200bd \u2028\u2029 e \x85 f \x0b\x0c g",
    "def f(x):\n    return {'a': [1, 2, (3)]}  # …\n\n\n```python\n\tpass\n```\n",
    "naïve café e\u0301 Zoë Ａ ﬁ ǅ İı ß ẞ Ω Ω Å Å",
    "각 각 คำ हिन्दी مرحبا שלום 日本語テキスト 👩‍👩‍👧‍👦 🇩🇪 \U0001f3fd \ufeff \ufffd",
    "<|im_start|><|im_sta <|im_end|>> <<|endoftext|> </s> <s> <|eot_id|><|eot_id|>",
    "\x00\x01\x7f\x80\x9f\xad \ue000 \U0010ffff",
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """By what the texts of a data set are tokenised.

    Attributes:
        structure: for tiktoken; None where the Hugging Face tokenizer does the work.
        reason: a few words on why.
    """

    structure: ByteBpe | None
    reason: str


def judge(tokenizer: PreTrainedTokenizerBase, documents: Sequence[str]) -> Verdict:
    """Whether tiktoken gives the ids of ``tokenizer``, on probes and on ``documents``."""
    backend = fast_form(tokenizer)
    if backend is None:
        return Verdict(structure=None, reason="transformers: the tokenizer has no fast form")
    if backend.encode_special_tokens:
        return Verdict(structure=None, reason="tokenizers: it takes special tokens for text")
    verdict = _of_backend(backend.to_str())
    if verdict.structure is None:
        return verdict
    differing = _first_difference(backend, verdict.structure, documents)
    if differing is not None:
        return Verdict(structure=None, reason=f"tokenizers: tiktoken gives other tokens for {differing!r}")
    return verdict


@lru_cache(maxsize=4)
def _of_backend(text: str) -> Verdict:
    """The verdict on a tokenizer by probes alone."""
    backend = Tokenizer.from_str(text)
    try:
        structure = read_structure(backend)
    except NotByteBpe as reason:
        return Verdict(structure=None, reason=f"tokenizers: no byte-level BPE that tiktoken knows, {reason}")
    probes = list(probe_texts(structure))
    differing = _first_difference(backend, structure, probes)
    if differing is not None:
        return Verdict(structure=None, reason=f"tokenizers: tiktoken gives other tokens for {differing!r}")
    return Verdict(structure=structure, reason=f"tiktoken: equal to tokenizers on {len(probes):,} texts made to differ")


def probe_texts(structure: ByteBpe) -> Iterator[str]:
    """Texts on which two implementations of the tokenizer are likely to differ where they do at all."""
    yield from _PROBES
    rng = random.Random(0)
    characters = _characters()
    for start in range(0, len(characters), 200):
        part = characters[start : start + 200]
        yield from ("".join(part), "".join(f"{c}a {c}1{c}{c} 's{c}\n" for c in part))
    words = [*(_text_of(token) for token in structure.ranks), *structure.first_added, *structure.then_added]
    words = [word for word in words if word]
    rng.shuffle(words)
    for start in range(0, len(words), 200):
        part = words[start : start + 200]
        yield from ("".join(part), " ".join(part), "".join(f"{word}\n{word.upper()}  " for word in part))
    for length in (1, 2, 3, 50, 2000):
        yield from (character * length + "x" for character in " \n\ta1é")
    for _ in range(300):
        pool = rng.choice([characters, words, list(" \n\t'sStT1a."), characters[:200] + words[:200]])
        yield "".join(rng.choice(pool) for _ in range(rng.randint(1, 60)))


def _characters() -> list[str]:
    """Every assigned character but for most of the ideographs and syllables, which are alike."""
    return [
        character
        for number, character in enumerate(map(chr, range(0x110000)))
        if (kind := unicodedata.category(character)) not in ("Cn", "Cs", "Co") and (kind != "Lo" or number % 40 == 0)
    ]


def _text_of(token: bytes) -> str:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return ""


def _first_difference(backend: Tokenizer, structure: ByteBpe, texts: Sequence[str]) -> str | None:
    """The start of the first text that gets other ids; None when there is none."""
    fast = FastEncoder(backend, structure).tokens(texts).each()
    slow = backend.encode_batch_fast(list(texts), add_special_tokens=False)
    pairs = zip(texts, fast, slow, strict=True)
    return next((text[:40] for text, ids, encoding in pairs if ids.tolist() != encoding.ids), None)
