"""One document with its loss mask made visible, to look at before training starts."""

from __future__ import annotations

from itertools import groupby

from rich.markup import escape
from transformers import PreTrainedTokenizerBase

from skills_pipe.training.data.dataset import Example


def preview(example: Example, tokenizer: PreTrainedTokenizerBase, *, markup: bool = False) -> str:
    """Text of a document: what is trained stands in green with ``markup`` (for rich), else between ⟦ and ⟧."""
    pairs = zip(example.input_ids.tolist(), example.loss_mask.tolist(), strict=True)
    parts = []
    for trained, group in groupby(pairs, key=lambda pair: bool(pair[1])):
        text = str(tokenizer.decode([token for token, _ in group], clean_up_tokenization_spaces=False))
        if markup:
            parts.append(f"[bold green]{escape(text)}[/]" if trained else f"[dim]{escape(text)}[/]")
        else:
            parts.append(f"⟦{text}⟧" if trained else text)
    return "".join(parts)
