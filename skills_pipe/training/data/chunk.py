"""Some rows -> their documents, with what was left out and why: the unit of work of the processes that tokenise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from skills_pipe.artifacts.rows import KINDS
from skills_pipe.errors import DataError
from skills_pipe.training.data.bpe.structure import ByteBpe
from skills_pipe.training.data.dataset import Example
from skills_pipe.training.data.document import Tokenize
from skills_pipe.training.data.encode import SampleEncoder
from skills_pipe.training.data.encoded import Encoded, EncodedTogether
from skills_pipe.training.data.limit import Overlong, shorten_fields, truncate
from skills_pipe.training.data.mask import MaskRules, Sample, make_samples, sample_of_pieces
from skills_pipe.training.data.rows import BadRow, Conversation, Pieces, Row
from skills_pipe.training.data.template import ChatTemplate
from skills_pipe.training.data.tracing.quick import QuickTemplate

TOO_LONG: Final = "longer than the limit"
NOTHING_TRAINED: Final = "nothing to train"


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """How rows become documents.

    Attributes:
        max_length: most tokens of a document.
        add_bos: give each document the tokenizer's beginning-of-text token where the template gives none.
        add_eos: the same for the end-of-text token.
        on_bad_row: refuse the data, or leave the row out and count it.
        overlong: what to do with a document longer than ``max_length``.
        only_final: train the last turn of a conversation only.
        answers_only: train what the assistant writes; False: all of the text.
        tokenize: see :class:`document.MaskRules`.
        on_untrained: leave out and count a document without a trained token, or refuse the data.
        train_on_header: see :class:`mask.MaskRules`.
        generation_prompt: see :class:`mask.MaskRules`.
    """

    max_length: int
    add_bos: bool = True
    add_eos: bool = True
    on_bad_row: Literal["error", "skip"] = "error"
    overlong: Overlong = "drop"
    only_final: bool = False
    answers_only: bool = True
    tokenize: Tokenize | None = None
    on_untrained: Literal["error", "skip"] = "skip"
    train_on_header: bool = False
    generation_prompt: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that turns rows into documents; it can be sent to another process.

    Attributes:
        tokenizer: the tokenizer.
        template: what makes one text of a conversation.
        settings: the rest.
        fast: for tiktoken, where it is known to give the tokenizer's ids; None: the tokenizer does the work.
    """

    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    settings: DataSettings
    fast: ByteBpe | None = None


@dataclass(kw_only=True)
class EncodedChunk:
    """Documents of some rows. T is the number of their tokens, n that of documents.

    Attributes:
        token_ids: int32 [T], ids of all documents one after the other.
        loss_mask: uint8 [T], or float32 where a weight is neither 0 nor 1.
        lengths: int64 [n], tokens of each document.
        faults: rows that cannot be trained on.
        dropped: reason -> documents left out.
        counts: the other counts of a :class:`report.DataReport`, by their names there.
    """

    token_ids: NDArray[np.int32]
    loss_mask: NDArray[Any]
    lengths: NDArray[np.int64]
    faults: list[BadRow] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def empty(cls) -> EncodedChunk:
        """A chunk of no document."""
        return cls(token_ids=np.zeros(0, np.int32), loss_mask=np.zeros(0, np.uint8), lengths=np.zeros(0, np.int64))


class ChunkEncoder:
    """Templates, masks, tokenises and limits rows."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._rules = mask_rules(recipe.tokenizer, recipe.settings)
        self._template = QuickTemplate(recipe.template)
        self._encoder = SampleEncoder(recipe.tokenizer, recipe.fast)
        self._reference = SampleEncoder(recipe.tokenizer) if recipe.fast is not None else None

    def encode(self, rows: Iterable[Row], *, compare: bool = False) -> EncodedChunk:
        """The documents of ``rows``, in their order; ``compare`` also counts those that have other tokens as one text.

        Raises:
            DataError: a document is too long where that is an error.
        """
        chunk = EncodedChunk.empty()
        samples: list[tuple[str, Sample]] = []
        for row in rows:
            chunk.counts["rows_read"] += 1
            result = row if isinstance(row, BadRow) else _unless_halved(self._samples(row, chunk), row.where)
            if isinstance(result, BadRow):
                chunk.faults.append(result)
            else:
                samples.extend((row.where, sample) for sample in result)
        if chunk.faults and self._recipe.settings.on_bad_row == "error":
            # The data is refused; only further faults are worth looking for.
            return chunk
        self._fill(chunk, samples, compare=compare)
        return chunk

    def texts(self, rows: Iterable[Row]) -> list[str]:
        """The documents of those ``rows`` that are good, as text."""
        chunk = EncodedChunk.empty()
        good = (row for row in rows if not isinstance(row, BadRow))
        made = (_unless_halved(self._samples(row, chunk), row.where) for row in good)
        return [sample.text for samples in made if not isinstance(samples, BadRow) for sample in samples]

    def _check_first(self, samples: Sequence[tuple[str, Sample]], encoded: EncodedTogether) -> None:
        """Of each chunk one document is tokenised in both ways: a difference that no probe showed must not pass."""
        if self._reference is None or not samples:
            return
        where, sample = samples[0]
        (expected,) = self._reference.encode([sample])
        if not np.array_equal(expected.input_ids, encoded.ids[: encoded.ends[1]]):
            raise DataError(
                "tiktoken and the tokenizer give this document different tokens",
                where=where,
                fix="set data.use_tiktoken=false",
            )

    def _samples(self, row: Conversation | Pieces, chunk: EncodedChunk) -> list[Sample] | BadRow:
        if isinstance(row, Pieces):
            return [sample_of_pieces(row, self._rules)]
        form = self._recipe.template.form
        if form not in (None, row.form):
            what = f"a row of {KINDS[row.form]} among rows of {KINDS[form]}"
            return BadRow(where=row.where, what=what)
        try:
            samples = make_samples(row, self._template, self._rules)
            if chunk.counts["rows_read"] == 1 and samples != make_samples(row, self._recipe.template, self._rules):
                # Of each chunk one row is rendered in both ways. No template is known that would come here.
                raise RuntimeError(f"{row.where}: the text of the chat template is not that of its trace")
        except DataError as error:
            return BadRow(where=row.where, what=str(error))
        chunk.counts["split_documents"] += len(samples) - 1
        return samples

    def _fill(self, chunk: EncodedChunk, samples: Sequence[tuple[str, Sample]], *, compare: bool) -> None:
        """Tokenise, and leave out or shorten what cannot be trained as it is."""
        documents = [sample for _, sample in samples]
        if compare:
            chunk.counts["compared"] = len(documents)
            chunk.counts["differing"] = self._encoder.count_differing(documents)
        together = self._encoder.encode_together(documents)
        self._check_first(samples, together)
        if self._is_good(together):
            # As is nearly always so; no document needs to be looked at by itself.
            chunk.token_ids, chunk.loss_mask, chunk.lengths = together.ids, together.mask, together.lengths
            self._count(chunk, documents, together.straddling.values())
            return
        kept: list[Example] = []
        for (where, sample), encoded in zip(samples, together.each(), strict=True):
            whole = self._with_one_bos(encoded, chunk)
            example = self._shortened(whole, where, chunk)
            if example is None:
                chunk.dropped[TOO_LONG] += 1
            elif not example.loss_mask.any():
                self._untrained(where, chunk)
            else:
                chunk.counts["truncated"] += int(len(example.input_ids) < len(whole.input_ids))
                self._count(chunk, [self._as_cut(sample, encoded, example)], (encoded.straddling,))
                kept.append(example)
        if kept:
            chunk.token_ids = np.concatenate([example.input_ids for example in kept])
            chunk.loss_mask = np.concatenate([example.loss_mask for example in kept])
            chunk.lengths = np.array([len(example.input_ids) for example in kept], dtype=np.int64)

    def _is_good(self, together: EncodedTogether) -> bool:
        """Whether all documents are trained as they are."""
        lengths, ids = together.lengths, together.ids
        if not len(lengths) or lengths.max() > self._recipe.settings.max_length or not together.trained().all():
            return False
        starts = together.ends[:-1][lengths > 1]
        bos = self._recipe.tokenizer.bos_token_id
        return bos is None or not ((ids[starts] == bos) & (ids[starts + 1] == bos)).any()

    def _count(self, chunk: EncodedChunk, samples: Sequence[Sample], straddling: Iterable[int]) -> None:
        turns = sum(sample.turns for sample in samples)
        chunk.counts["straddling"] += sum(straddling)
        chunk.counts["turns"] += turns
        chunk.counts["turns_without_stop"] += turns - sum(sample.stopped for sample in samples)

    def _as_cut(self, sample: Sample, whole: Encoded, kept: Example) -> Sample:
        """The sample with the turns that are left where it was shortened at its end, and those that end as they did."""
        if np.count_nonzero(kept.loss_mask) == np.count_nonzero(whole.loss_mask):
            return sample
        borders = np.flatnonzero(np.diff(kept.loss_mask != 0, prepend=False, append=False)).reshape(-1, 2)
        stops = (*self._rules.stops, *filter(None, (sample.stop,)))
        decode = self._recipe.tokenizer.decode
        texts = [str(decode(kept.input_ids[start:end])).rstrip() for start, end in borders]
        return replace(sample, turns=len(texts), stopped=sum(bool(stops) and text.endswith(stops) for text in texts))

    def _untrained(self, where: str, chunk: EncodedChunk) -> None:
        if self._recipe.settings.on_untrained == "error":
            raise DataError(
                "none of the tokens of a document is trained",
                where=where,
                fix="mend the row, or set data.on_untrained=skip to leave such rows out",
            )
        chunk.dropped[NOTHING_TRAINED] += 1

    def _shortened(self, example: Encoded, where: str, chunk: EncodedChunk) -> Example | None:
        """The document within the limit, None when it is to be dropped."""
        settings = self._recipe.settings
        limit = settings.max_length
        if len(example.input_ids) <= limit:
            return example
        chunk.counts["overlong"] += 1
        if example.cuttable:
            # Which fields may be cut is part of the format; the policy is for what they are not enough for.
            example = shorten_fields(example, limit)
            if len(example.input_ids) <= limit:
                return example
        if settings.overlong == "error":
            raise DataError(
                f"a document has {len(example.input_ids)} tokens, {limit} are allowed",
                where=where,
                fix="raise data.max_input_seq_length, or set data.overlong to drop or truncate",
            )
        if settings.overlong == "drop":
            return None
        return truncate(example, limit, bos_id=self._recipe.tokenizer.bos_token_id)

    def _with_one_bos(self, example: Encoded, chunk: EncodedChunk) -> Encoded:
        """Take out further beginning-of-text tokens at the start: text that was templated twice has them."""
        bos = self._recipe.tokenizer.bos_token_id
        ids = example.input_ids
        if bos is None or len(ids) < 2 or ids[0] != bos or ids[1] != bos:
            return example
        chunk.counts["doubled_bos"] += 1
        others = np.flatnonzero(ids != bos)
        first = int(others[0]) - 1 if len(others) else len(ids) - 1
        return example.without_first(first)


def _unless_halved(samples: list[Sample] | BadRow, where: str) -> list[Sample] | BadRow:
    """The samples, unless there is half a character in their text: JSON can say that, and no tokenizer takes it."""
    for sample in [] if isinstance(samples, BadRow) else samples:
        text = sample.text
        try:
            # Much faster than to encode it, and nearly always so.
            if not text.isascii():
                text.encode()
        except UnicodeEncodeError as error:
            before = text[max(error.start - 20, 0) : error.start]
            return BadRow(where=where, what=f"not Unicode (half a surrogate pair after {before!r})")
    return samples


def mask_rules(tokenizer: PreTrainedTokenizerBase, settings: DataSettings) -> MaskRules:
    """The rules of masks that follow from a tokenizer and the settings."""
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return MaskRules(
        bos=tokenizer.bos_token if settings.add_bos else None,
        eos=tokenizer.eos_token if settings.add_eos else None,
        stops=tuple(sorted(special | set(tokenizer.all_special_tokens))),
        only_final=settings.only_final,
        answers_only=settings.answers_only,
        tokenize=settings.tokenize,
        train_on_header=settings.train_on_header,
        generation_prompt=settings.generation_prompt,
    )
