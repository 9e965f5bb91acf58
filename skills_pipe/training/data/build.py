"""Rows of files -> a data set: read, template, mask, tokenise, limit, count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final, Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from skills_pipe.errors import DataError
from skills_pipe.training.data.dataset import Example, SftDataset, narrow, offsets_of
from skills_pipe.training.data.encode import SampleEncoder
from skills_pipe.training.data.limit import Overlong, truncate
from skills_pipe.training.data.mask import MaskRules, Sample, make_samples
from skills_pipe.training.data.report import DataReport
from skills_pipe.training.data.rows import BadRow, Conversation
from skills_pipe.training.data.sources import DataSource, read_rows
from skills_pipe.training.data.template import ChatTemplate

BAD_ROW: Final = "bad row"
TOO_LONG: Final = "longer than the limit"
NOTHING_TRAINED: Final = "nothing to train"

_CHUNK: Final = 256
_SHOWN: Final = 10
_PERCENTILES: Final = (50, 90, 99, 100)


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
        train_on_header: see :class:`mask.MaskRules`.
        generation_prompt: see :class:`mask.MaskRules`.
    """

    max_length: int
    add_bos: bool = True
    add_eos: bool = True
    on_bad_row: Literal["error", "skip"] = "error"
    overlong: Overlong = "drop"
    only_final: bool = False
    train_on_header: bool = False
    generation_prompt: bool = False


def build_dataset(
    sources: Sequence[DataSource], tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, settings: DataSettings
) -> SftDataset:
    """Read, template, mask and tokenise all rows of ``sources``, in their order.

    Raises:
        DataError: a file cannot be read, rows are bad (up to ten are named), a document is too long where that is an
            error, or nothing is left to train on.
    """
    rows = chain.from_iterable(read_rows(source) for source in sources)
    builder = _Builder(tokenizer, template, settings)
    while chunk := list(islice(rows, _CHUNK)):
        builder.add(chunk)
    return builder.finish(", ".join(str(source.path) for source in sources))


def mask_rules(tokenizer: PreTrainedTokenizerBase, settings: DataSettings) -> MaskRules:
    """The rules of masks that follow from a tokenizer and the settings."""
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return MaskRules(
        bos=tokenizer.bos_token if settings.add_bos else None,
        eos=tokenizer.eos_token if settings.add_eos else None,
        stops=tuple(sorted(special | set(tokenizer.all_special_tokens))),
        only_final=settings.only_final,
        train_on_header=settings.train_on_header,
        generation_prompt=settings.generation_prompt,
    )


class _Builder:
    """Collects documents and counts, chunk by chunk."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, settings: DataSettings) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._settings = settings
        self._rules = mask_rules(tokenizer, settings)
        self._encoder = SampleEncoder(tokenizer)
        self._faults: list[BadRow] = []
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._lengths: list[int] = []
        self._ids: list[np.ndarray] = []
        self._masks: list[np.ndarray] = []

    def add(self, rows: Sequence[Conversation | BadRow]) -> None:
        """Take in some rows."""
        self._counts["rows_read"] += len(rows)
        samples: list[tuple[str, Sample]] = []
        for row in rows:
            result = row if isinstance(row, BadRow) else self._samples(row)
            if isinstance(result, BadRow):
                self._faults.append(result)
            else:
                samples.extend((row.where, sample) for sample in result)
        if self._faults and self._settings.on_bad_row == "error":
            # The data is refused; only further faults are worth looking for.
            self._refuse_when_enough()
            return
        kept = list(self._limited(samples))
        self._lengths.extend(len(example.input_ids) for example in kept)
        self._ids.append(narrow(np.concatenate([np.zeros(0, np.int32), *(e.input_ids for e in kept)])))
        self._masks.append(np.concatenate([np.zeros(0, np.uint8), *(e.loss_mask for e in kept)]))

    def finish(self, names: str) -> SftDataset:
        """The data set of all rows; ``names`` says for messages where they came from."""
        if self._faults and self._settings.on_bad_row == "error":
            raise self._refusal()
        if self._faults:
            self._dropped[BAD_ROW] = len(self._faults)
        if not self._lengths:
            reasons = "; ".join(f"{reason}: {count}" for reason, count in self._dropped.items())
            raise DataError(
                f"no document is left of {self._counts['rows_read']} rows" + (f" ({reasons})" if reasons else ""),
                where=names,
            )
        return SftDataset(
            np.concatenate(self._ids), np.concatenate(self._masks), offsets_of(self._lengths), self._report()
        )

    def _samples(self, conversation: Conversation) -> list[Sample] | BadRow:
        if self._template.form not in (None, conversation.form):
            kinds = {"pair": "input and output", "chat": "messages", "both": "messages, input and output"}
            what = f"a row of {kinds[conversation.form]} among rows of {kinds[self._template.form]}"
            return BadRow(where=conversation.where, what=what)
        try:
            samples = make_samples(conversation, self._template, self._rules)
        except DataError as error:
            return BadRow(where=conversation.where, what=str(error))
        self._counts["split_documents"] += len(samples) - 1
        return samples

    def _limited(self, samples: Sequence[tuple[str, Sample]]) -> Iterator[Example]:
        """Tokenise, and leave out or shorten what cannot be trained as it is."""
        documents = [sample for _, sample in samples]
        if not self._counts["compared"]:
            self._counts["compared"] = len(documents)
            self._counts["differing"] = self._encoder.count_differing(documents)
        for (where, sample), example in zip(samples, self._encoder.encode(documents), strict=True):
            kept = self._shortened(self._with_one_bos(example), where)
            if kept is None:
                self._dropped[TOO_LONG] += 1
            elif not kept.loss_mask.any():
                self._dropped[NOTHING_TRAINED] += 1
            else:
                self._counts["turns"] += sample.turns
                self._counts["turns_without_stop"] += sample.turns - sample.stopped
                yield kept

    def _shortened(self, example: Example, where: str) -> Example | None:
        """The document within the limit, None when it is to be dropped."""
        limit = self._settings.max_length
        if len(example.input_ids) <= limit:
            return example
        self._counts["overlong"] += 1
        if self._settings.overlong == "error":
            raise DataError(
                f"a document has {len(example.input_ids)} tokens, {limit} are allowed",
                where=where,
                fix="raise data.max_input_seq_length, or set data.overlong to drop or truncate",
            )
        if self._settings.overlong == "drop":
            return None
        self._counts["truncated"] += 1
        return truncate(example, limit, bos_id=self._tokenizer.bos_token_id)

    def _with_one_bos(self, example: Example) -> Example:
        """Take out further beginning-of-text tokens at the start: text that was templated twice has them."""
        bos = self._tokenizer.bos_token_id
        ids = example.input_ids
        if bos is None or len(ids) < 2 or ids[0] != bos or ids[1] != bos:
            return example
        self._counts["doubled_bos"] += 1
        others = np.flatnonzero(ids != bos)
        first = int(others[0]) - 1 if len(others) else len(ids) - 1
        return Example(input_ids=ids[first:], loss_mask=example.loss_mask[first:])

    def _refuse_when_enough(self) -> None:
        self._ids, self._masks = [], []
        if len(self._faults) >= _SHOWN:
            raise self._refusal()

    def _refusal(self) -> DataError:
        shown = [f"{fault.where}: {fault.what}" for fault in self._faults[:_SHOWN]]
        advice = "mend the data, or set ++data.on_bad_row=skip to leave such rows out"
        if len(shown) == 1:
            return DataError(self._faults[0].what, where=self._faults[0].where, fix=advice)
        count = f"{_SHOWN} or more" if len(shown) == _SHOWN else str(len(shown))
        return DataError(f"{count} rows cannot be used\n  " + "\n  ".join(shown) + "\n" + advice)

    def _report(self) -> DataReport:
        percentiles = np.percentile(self._lengths, _PERCENTILES, method="inverted_cdf")
        return DataReport(
            documents=len(self._lengths),
            dropped=dict(self._dropped),
            tokens=sum(self._lengths),
            targets=sum(int(mask.sum()) for mask in self._masks),
            length_percentiles=dict(zip(_PERCENTILES, map(int, percentiles), strict=True)),
            **self._counts,
        )
