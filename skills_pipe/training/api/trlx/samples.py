"""Texts and dialogues -> tokens, masks and batches, as trlX's trainers make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from skills_pipe.errors import DataError
from skills_pipe.training.data.dataset import Example


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The tokens of a text or dialogue.

    Attributes:
        ids: its tokens.
        prompts: for each of them, whether it is a prompt's, which is not trained; empty: none is.
    """

    ids: tuple[int, ...]
    prompts: tuple[bool, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Collation:
    """How the tokens of a text become a document.

    Attributes:
        max_length: most tokens of a document.
        bos_id: token put in front; None: none.
        eos_id: token that ends a document; None: none.
        train_eos: whether the model learns to write it.
    """

    max_length: int
    bos_id: int | None = None
    eos_id: int | None = None
    train_eos: bool = True

    def with_ends(self, ids: Sequence[int]) -> list[int]:
        """The tokens with what begins and ends them, at most ``max_length``; the end is never cut off."""
        begin = [] if self.bos_id is None else [self.bos_id]
        end = [] if self.eos_id is None else [self.eos_id]
        return [*[*begin, *ids][: self.max_length - len(end)], *end]

    def mask(self, ids: Sequence[int]) -> list[float]:
        """1 for the tokens of a text that are trained."""
        trained = [1.0] * len(ids)
        if self.eos_id is not None and not self.train_eos:
            trained[-1] = 0.0
        return trained

    def example(self, sample: Sample) -> Example:
        """A document to train on; nothing stands before its first token, so that one is not trained.

        Raises:
            DataError: all outputs of a dialogue are beyond ``max_length``.
        """
        whole = self.with_ends(sample.ids)
        mask = np.array(self.mask(whole), dtype=np.uint8)
        if sample.prompts:
            begin = 0 if self.bos_id is None else 1
            inside = mask[begin : len(mask) - (self.eos_id is not None)]
            prompts = np.array(sample.prompts[: len(inside)])
            if prompts.all():
                what = f"no output of a dialogue is left within {self.max_length} tokens"
                raise DataError(what, where="samples", fix="raise encoder_seq_length, or shorten the prompts")
            inside[prompts] = 0
        mask[:1] = 0
        return Example(input_ids=np.array(whole, dtype=np.int32), loss_mask=mask)

    def batch(self, items: Sequence[Sequence[int]], *, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and masks padded to ``max_length``: int64 and float32 ``[items, max_length]``; padding has the mask 0."""
        rows = [self.with_ends(ids) for ids in items]
        ids = torch.full((len(rows), self.max_length), pad_id, dtype=torch.int64)
        mask = torch.zeros(len(rows), self.max_length)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = torch.tensor(self.mask(row))
        return ids, mask


def tokenise(
    samples: Sequence[str | Sequence[str]], tokenizer: PreTrainedTokenizerBase, seq_length: int
) -> list[Sample]:
    """Tokens of texts and dialogues, without special ones.

    They are cut to ``seq_length`` at the tokenizer's ``truncation_side``. The texts of a dialogue are tokenised each by
    itself.

    Raises:
        DataError: there are none, or one is neither a text nor a dialogue, or has no token of an output.
    """
    if not samples:
        raise DataError("there are no samples", where="samples", fix="give a list of texts, or of dialogues")
    dialogues = [_dialogue(sample, f"samples[{index}]") for index, sample in enumerate(samples)]
    parts = [part for dialogue in dialogues for part in dialogue]
    encoded = cast("list[list[int]]", tokenizer(parts, add_special_tokens=False)["input_ids"])
    found: list[Sample] = []
    at = 0
    for index, dialogue in enumerate(dialogues):
        sample = _joined(encoded[at : at + len(dialogue)], tokenizer.truncation_side, seq_length)
        at += len(dialogue)
        if all(sample.prompts) and sample.prompts:
            what = f"no token of an output is among the first {seq_length}"
            raise DataError(what, where=f"samples[{index}]", fix="raise seq_length, or shorten the prompts")
        found.append(sample)
    return found


def _dialogue(sample: str | Sequence[str], where: str) -> list[str]:
    """The texts of a sample: one that is trained, or prompts and outputs in turn."""
    if isinstance(sample, str):
        return [sample]
    parts = list(sample) if isinstance(sample, Sequence) else []
    if not parts or not all(isinstance(part, str) for part in parts):
        raise DataError("neither a text nor a list of texts", where=where, fix="write [prompt, output, ...]")
    if len(parts) % 2:
        raise DataError(f"a dialogue of {len(parts)} texts", where=where, fix="each prompt needs an output")
    return parts


def _joined(parts: Sequence[Sequence[int]], side: str, seq_length: int) -> Sample:
    ids = [token for part in parts for token in part]
    # A single text is an output.
    prompts = [len(parts) > 1 and place % 2 == 0 for place, part in enumerate(parts) for _ in part]
    kept = slice(max(0, len(ids) - seq_length), None) if side == "left" else slice(seq_length)
    return Sample(ids=tuple(ids[kept]), prompts=tuple(prompts[kept]) if len(parts) > 1 else ())
