"""Segments of text -> token ids and loss mask."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from skills_pipe.errors import DataError
from skills_pipe.training.data.bpe.encoder import FastEncoder
from skills_pipe.training.data.bpe.structure import ByteBpe
from skills_pipe.training.data.dataset import Example
from skills_pipe.training.data.mask import Sample

_PROBES: Final = (("a", "b"), ("It is", " 4"), ("x:\n\n", "\ny"), ("1", "2"), ("(", "é"))


class SampleEncoder:
    """Tokenises samples in batches.

    Segments are tokenised one by one: a token then never reaches over the border between what the model is given and
    what it writes, just as when it generates. With tokenizers for which text in the middle differs from text at the
    start (SentencePiece's prefix space) the whole text is tokenised, and a token belongs to the segment of its last
    character.

    Args:
        tokenizer: the tokenizer.
        fast: for tiktoken, where :func:`bpe.verify.judge` found it equal to the tokenizer.

    Raises:
        DataError: the tokenizer has no fast form, and pieces of text cannot be tokenised by themselves.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, fast: ByteBpe | None = None) -> None:
        self._tokenizer = tokenizer
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        self._fast = FastEncoder(self._backend, fast) if fast is not None else None
        self.cuts = self._cuts_cleanly()
        if not self.cuts and self._backend is None:
            raise DataError(
                f"{type(tokenizer).__name__} tells no character offsets", fix="use the fast form of the tokenizer"
            )

    def encode(self, samples: Sequence[Sample]) -> list[Example]:
        """Token ids and loss masks of many samples."""
        if self._backend is not None:
            # Whoever used the tokenizer before may have left these on; every later call of it sets its own.
            self._backend.no_truncation()
            self._backend.no_padding()
        return self._by_segment(samples) if self.cuts else self._by_offset(samples)

    def count_differing(self, samples: Sequence[Sample]) -> int:
        """How many samples the tokenizer would split differently if it were given their text as a whole."""
        whole = self._ids([sample.text for sample in samples])
        pairs = zip(whole, self.encode(samples), strict=True)
        return sum(ids != example.input_ids.tolist() for ids, example in pairs)

    def _by_segment(self, samples: Sequence[Sample]) -> list[Example]:
        ids = iter(self._ids([segment.text for sample in samples for segment in sample.segments]))
        examples = []
        for sample in samples:
            pieces = [np.asarray(next(ids), dtype=np.int32) for _ in sample.segments]
            trained = np.array([segment.trained for segment in sample.segments], dtype=np.uint8)
            mask = np.repeat(trained, [len(piece) for piece in pieces])
            examples.append(_example(np.concatenate(pieces) if pieces else np.zeros(0, np.int32), mask))
        return examples

    def _by_offset(self, samples: Sequence[Sample]) -> list[Example]:
        encodings = self._backend.encode_batch([sample.text for sample in samples], add_special_tokens=False)
        examples = []
        for sample, encoding in zip(samples, encodings, strict=True):
            ends = np.array(list(accumulate(len(segment.text) for segment in sample.segments)), dtype=np.int64)
            trained = np.array([segment.trained for segment in sample.segments], dtype=np.uint8)
            offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
            last_characters = np.maximum(offsets[:, 1] - 1, offsets[:, 0])
            segment_of = np.minimum(np.searchsorted(ends, last_characters, side="right"), len(ends) - 1)
            examples.append(_example(np.array(encoding.ids, dtype=np.int32), trained[segment_of]))
        return examples

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if self._fast is not None:
            return self._fast.ids(texts)
        if self._backend is not None:
            return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
        return [self._tokenizer.encode(text, add_special_tokens=False) for text in texts]

    def _cuts_cleanly(self) -> bool:
        """Whether the tokens of two pieces are always tokens of the text that they make together."""
        return all(
            self._tokenizer.decode(
                [token for ids in self._ids(probe) for token in ids], clean_up_tokenization_spaces=False
            )
            == "".join(probe)
            for probe in _PROBES
        )


def _example(input_ids: NDArray[np.int32], loss_mask: NDArray[np.uint8]) -> Example:
    # Nothing stands before the first token to predict it from.
    loss_mask[:1] = 0
    return Example(input_ids=input_ids, loss_mask=loss_mask)
