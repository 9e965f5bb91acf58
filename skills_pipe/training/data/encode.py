"""Segments of text -> token ids and loss mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from skills_pipe.errors import DataError
from skills_pipe.training.data.bpe.encoder import FastEncoder
from skills_pipe.training.data.bpe.structure import ByteBpe
from skills_pipe.training.data.encoded import Cuttable, Encoded, EncodedTogether
from skills_pipe.training.data.fast_form import fast_form
from skills_pipe.training.data.mask import Sample
from skills_pipe.training.data.rows import Segment
from skills_pipe.training.data.spans import mask_of_texts, mask_of_tokens
from skills_pipe.training.data.token_bytes import TokenBytes, byte_length
from skills_pipe.training.data.tokens import Tokens

_PROBES: Final = (("a", "b"), ("It is", " 4"), ("x:\n\n", "\ny"), ("1", "2"), ("(", "é"))


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
        self._backend: Any = fast_form(tokenizer)
        self._fast = FastEncoder(self._backend, fast) if fast is not None else None
        self._token_bytes = TokenBytes.of(self._backend) if self._backend is not None else None
        self.cuts = self._cuts_cleanly()
        if not self.cuts and self._backend is None:
            raise DataError(
                f"{type(tokenizer).__name__} tells no character offsets", fix="use the fast form of the tokenizer"
            )

    def encode(self, samples: Sequence[Sample]) -> list[Encoded]:
        """Token ids and loss masks of many samples."""
        return self.encode_together(samples).each()

    def encode_together(self, samples: Sequence[Sample]) -> EncodedTogether:
        """The same in one array for all."""
        # Somebody else may have used the tokenizer since.
        fast_form(self._tokenizer)
        apart = [self.cuts and sample.tokenize == "segments" for sample in samples]
        if all(apart):
            return self._by_segment(samples)
        if not any(apart):
            return self._whole(samples)
        chosen = list(zip(samples, apart, strict=True))
        by_segment = iter(self._by_segment([sample for sample, is_apart in chosen if is_apart]).each())
        whole = iter(self._whole([sample for sample, is_apart in chosen if not is_apart]).each())
        return EncodedTogether.of([next(by_segment if is_apart else whole) for is_apart in apart])

    def count_differing(self, samples: Sequence[Sample]) -> int:
        """How many samples the tokenizer would split differently if it were given their text as a whole."""
        whole = self._tokens([sample.text for sample in samples]).each()
        pairs = zip(whole, self.encode(samples), strict=True)
        return sum(not np.array_equal(ids, example.input_ids) for ids, example in pairs)

    def _by_segment(self, samples: Sequence[Sample]) -> EncodedTogether:
        segments = [segment for sample in samples for segment in sample.segments]
        tokens = self._tokens([segment.text for segment in segments])
        ends = _before(tokens.counts)[_before([len(sample.segments) for sample in samples])]
        cuttable = {}
        for number, (sample, start) in enumerate(zip(samples, _before(len(s.segments) for s in samples), strict=False)):
            if any(segment.cut is not None for segment in sample.segments):
                counts = tokens.counts[start : start + len(sample.segments)].tolist()
                cuttable[number] = _cuttable(sample.segments, counts)
        return EncodedTogether(
            ids=tokens.ids,
            mask=_without_first(np.repeat(_values(segments), tokens.counts), ends),
            ends=ends,
            cuttable=cuttable,
        )

    def _whole(self, samples: Sequence[Sample]) -> EncodedTogether:
        """Tokenised as one text each; where the bytes of tokens are known, without asking for their places."""
        texts = [sample.text for sample in samples]
        if self._token_bytes is None:
            encodings = self._backend_or_refuse().encode_batch(texts, add_special_tokens=False)
            found = [_by_offset(sample, encoding) for sample, encoding in zip(samples, encodings, strict=True)]
            return EncodedTogether.of(found)
        tokens = self._tokens(texts)
        ends = _before(tokens.counts)
        widths = self._token_bytes.lengths[tokens.ids]
        reached = _before(widths)
        totals = np.diff(reached[ends]).tolist()
        told = all(self._token_bytes.tell(text, total) for text, total in zip(texts, totals, strict=True))
        if not told or not (widths > 0).all():
            return EncodedTogether.of([self._placed(*each) for each in zip(samples, texts, tokens.each(), strict=True)])
        segments = [segment for sample in samples for segment in sample.segments]
        borders = np.cumsum([byte_length(segment.text) for segment in segments], dtype=np.int64)
        mask, unclear = mask_of_texts(reached, borders, _values(segments))
        straddling = {}
        if len(unclear):
            last = np.cumsum([len(sample.segments) for sample in samples])
            for number in np.unique(np.searchsorted(last, unclear, side="right")).tolist():
                placed = self._placed(samples[number], texts[number], tokens.ids[ends[number] : ends[number + 1]])
                mask[ends[number] : ends[number + 1]] = placed.loss_mask
                straddling[number] = placed.straddling
        return EncodedTogether(ids=tokens.ids, mask=_without_first(mask, ends), ends=ends, straddling=straddling)

    def _placed(self, sample: Sample, text: str, ids: NDArray[np.int32]) -> Encoded:
        """One sample as one text, by the places of its tokens."""
        if self._token_bytes is None or not self._token_bytes.tell(text, int(self._token_bytes.lengths[ids].sum())):
            return _by_offset(sample, self._backend.encode(text, add_special_tokens=False))
        lengths = self._token_bytes.lengths[ids]
        ends = np.cumsum(lengths)
        borders = np.cumsum([byte_length(segment.text) for segment in sample.segments], dtype=np.int64)
        mask, straddling = mask_of_tokens(ends - lengths, ends, borders, _values(sample.segments))
        mask[:1] = 0
        return Encoded(input_ids=ids, loss_mask=mask, straddling=straddling)

    def _backend_or_refuse(self) -> Any:
        if self._backend is None:
            raise DataError(
                f"{type(self._tokenizer).__name__} tells no character offsets",
                fix="use the fast form of the tokenizer, or set data.tokenize=segments",
            )
        return self._backend

    def _tokens(self, texts: Sequence[str]) -> Tokens:
        if self._fast is not None:
            return self._fast.tokens(texts)
        if self._backend is not None:
            return Tokens.of([text.ids for text in self._backend.encode_batch_fast(texts, add_special_tokens=False)])
        return Tokens.of([self._tokenizer.encode(text, add_special_tokens=False) for text in texts])

    def _cuts_cleanly(self) -> bool:
        """Whether the tokens of two pieces are always tokens of the text that they make together."""
        return all(
            self._tokenizer.decode(self._tokens(probe).ids.tolist(), clean_up_tokenization_spaces=False)
            == "".join(probe)
            for probe in _PROBES
        )


def _by_offset(sample: Sample, encoding: Any) -> Encoded:
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    borders = np.cumsum([len(segment.text) for segment in sample.segments], dtype=np.int64)
    mask, straddling = mask_of_tokens(offsets[:, 0], offsets[:, 1], borders, _values(sample.segments))
    mask[:1] = 0
    return Encoded(input_ids=np.array(encoding.ids, dtype=np.int32), loss_mask=mask, straddling=straddling)


def _values(segments: Sequence[Segment]) -> NDArray[Any]:
    """What the mask says of each segment: 0 and 1 in bytes, other weights as float32."""
    values = np.array([segment.weight if segment.trained else 0.0 for segment in segments], dtype=np.float32)
    narrow = values.astype(np.uint8)
    return narrow if np.array_equal(narrow, values) and (narrow <= 1).all() else values


def _before(lengths: Iterable[int] | NDArray[Any]) -> NDArray[np.int64]:
    """How much comes before each of some things, and before the end."""
    counts = lengths if isinstance(lengths, np.ndarray) else np.fromiter(lengths, np.int64)
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _without_first(mask: NDArray[Any], ends: NDArray[np.int64]) -> NDArray[Any]:
    """A mask without the first token of each text: nothing stands before it to predict it from."""
    mask[ends[:-1][ends[:-1] < ends[1:]]] = 0
    return mask


def _cuttable(segments: Sequence[Segment], lengths: Sequence[int]) -> tuple[Cuttable, ...]:
    if all(segment.cut is None for segment in segments):
        return ()
    ends = accumulate(lengths)
    return tuple(
        Cuttable(start=end - length, stop=end, end=segment.cut)
        for segment, length, end in zip(segments, lengths, ends, strict=True)
        if segment.cut is not None
    )
