"""Segments of text -> token ids and loss mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from skills_pipe.errors import DataError
from skills_pipe.training.data.bpe.encoder import FastEncoder
from skills_pipe.training.data.bpe.structure import ByteBpe
from skills_pipe.training.data.dataset import Example
from skills_pipe.training.data.mask import Sample
from skills_pipe.training.data.rows import CutEnd, Segment
from skills_pipe.training.data.spans import mask_of_tokens
from skills_pipe.training.data.token_bytes import TokenBytes

_PROBES: Final = (("a", "b"), ("It is", " 4"), ("x:\n\n", "\ny"), ("1", "2"), ("(", "é"))


@dataclass(frozen=True, kw_only=True)
class Cuttable:
    """Tokens ``start`` to ``stop`` of a document, which may be shortened at one end."""

    start: int
    stop: int
    end: CutEnd


@dataclass(frozen=True, kw_only=True)
class Encoded(Example):
    """A document as it was tokenised, before anything is done about its length.

    Attributes:
        cuttable: stretches that its format allows to shorten, in order.
        straddling: tokens that reach over a border of what is trained; they are trained.
    """

    cuttable: tuple[Cuttable, ...] = ()
    straddling: int = 0

    def without_first(self, count: int) -> Encoded:
        """The document without its first tokens."""
        return Encoded(
            input_ids=self.input_ids[count:],
            loss_mask=self.loss_mask[count:],
            cuttable=tuple(
                Cuttable(start=max(c.start - count, 0), stop=max(c.stop - count, 0), end=c.end) for c in self.cuttable
            ),
            straddling=self.straddling,
        )


class SampleEncoder:
    """Tokenises samples in batches.

    Segments are tokenised one by one: a token then never reaches over the border between what the model is given and
    what it writes, just as when it generates. Samples that ask for it are tokenised as one text, and so is everything
    with tokenizers for which text in the middle differs from text at the start (SentencePiece's prefix space): a token
    with any character of a trained segment is then trained, as Hugging Face does, with the greatest weight it touches.

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
        self._token_bytes = TokenBytes.of(self._backend) if self._backend is not None else None
        self.cuts = self._cuts_cleanly()
        if not self.cuts and self._backend is None:
            raise DataError(
                f"{type(tokenizer).__name__} tells no character offsets", fix="use the fast form of the tokenizer"
            )

    def encode(self, samples: Sequence[Sample]) -> list[Encoded]:
        """Token ids and loss masks of many samples."""
        if self._backend is not None:
            # Whoever used the tokenizer before may have left these on; every later call of it sets its own.
            self._backend.no_truncation()
            self._backend.no_padding()
        apart = [self.cuts and sample.tokenize == "segments" for sample in samples]
        by_segment = iter(
            self._by_segment([sample for sample, is_apart in zip(samples, apart, strict=True) if is_apart])
        )
        whole = iter(self._whole([sample for sample, is_apart in zip(samples, apart, strict=True) if not is_apart]))
        return [next(by_segment if is_apart else whole) for is_apart in apart]

    def count_differing(self, samples: Sequence[Sample]) -> int:
        """How many samples the tokenizer would split differently if it were given their text as a whole."""
        whole = self._ids([sample.text for sample in samples])
        pairs = zip(whole, self.encode(samples), strict=True)
        return sum(ids != example.input_ids.tolist() for ids, example in pairs)

    def _by_segment(self, samples: Sequence[Sample]) -> list[Encoded]:
        ids = iter(self._ids([segment.text for sample in samples for segment in sample.segments]))
        examples = []
        for sample in samples:
            pieces = [next(ids) for _ in sample.segments]
            lengths = [len(piece) for piece in pieces]
            tokens = np.fromiter(chain.from_iterable(pieces), np.int32, sum(lengths))
            mask = np.repeat(_values(sample.segments), lengths)
            examples.append(_encoded(tokens, mask, cuttable=_cuttable(sample.segments, lengths)))
        return examples

    def _whole(self, samples: Sequence[Sample]) -> list[Encoded]:
        """Tokenised as one text each; where the bytes of tokens are known, without asking for their places."""
        if not samples:
            return []
        texts = [sample.text for sample in samples]
        if self._token_bytes is None:
            encodings = self._backend_or_refuse().encode_batch(texts, add_special_tokens=False)
            return [_by_offset(sample, encoding) for sample, encoding in zip(samples, encodings, strict=True)]
        examples = []
        for sample, text, ids in zip(samples, texts, self._ids(texts), strict=True):
            tokens = np.asarray(ids, dtype=np.int32)
            ends = np.cumsum(self._token_bytes.lengths[tokens])
            if not self._token_bytes.tell(text, int(ends[-1]) if len(ends) else 0):
                examples.append(_by_offset(sample, self._backend.encode(text, add_special_tokens=False)))
                continue
            borders = _ends(len(segment.text.encode()) for segment in sample.segments)
            starts = ends - self._token_bytes.lengths[tokens]
            mask, straddling = mask_of_tokens(starts, ends, borders, _values(sample.segments))
            examples.append(_encoded(tokens, mask, straddling=straddling))
        return examples

    def _backend_or_refuse(self) -> Any:
        if self._backend is None:
            raise DataError(
                f"{type(self._tokenizer).__name__} tells no character offsets",
                fix="use the fast form of the tokenizer, or set data.tokenize=segments",
            )
        return self._backend

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


def _by_offset(sample: Sample, encoding: Any) -> Encoded:
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    borders = _ends(len(segment.text) for segment in sample.segments)
    mask, straddling = mask_of_tokens(offsets[:, 0], offsets[:, 1], borders, _values(sample.segments))
    return _encoded(np.array(encoding.ids, dtype=np.int32), mask, straddling=straddling)


def _values(segments: Sequence[Segment]) -> NDArray[Any]:
    """What the mask says of each segment: 0 and 1 in bytes, other weights as float32."""
    values = np.array([segment.weight if segment.trained else 0.0 for segment in segments], dtype=np.float32)
    narrow = values.astype(np.uint8)
    return narrow if np.array_equal(narrow, values) and (narrow <= 1).all() else values


def _ends(lengths: Iterable[int]) -> NDArray[np.int64]:
    return np.array(list(accumulate(lengths)), dtype=np.int64)


def _cuttable(segments: Sequence[Segment], lengths: Sequence[int]) -> tuple[Cuttable, ...]:
    if all(segment.cut is None for segment in segments):
        return ()
    ends = accumulate(lengths)
    return tuple(
        Cuttable(start=end - length, stop=end, end=segment.cut)
        for segment, length, end in zip(segments, lengths, ends, strict=True)
        if segment.cut is not None
    )


def _encoded(
    input_ids: NDArray[np.int32],
    loss_mask: NDArray[Any],
    *,
    cuttable: tuple[Cuttable, ...] = (),
    straddling: int = 0,
) -> Encoded:
    # Nothing stands before the first token to predict it from.
    loss_mask[:1] = 0
    return Encoded(input_ids=input_ids, loss_mask=loss_mask, cuttable=cuttable, straddling=straddling)
